"""``infer``: a pipeline in this process, on rows that the caller holds."""
