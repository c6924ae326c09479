"""The jobs' configuration: what a YAML file says, checked and frozen."""
