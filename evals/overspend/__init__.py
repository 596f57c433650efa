"""The comparison: the same scripted calls through this library and through others, judged by the provider's bill."""
