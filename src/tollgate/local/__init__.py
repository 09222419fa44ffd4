"""The embedded platform: the only package that knows there are processes (see docs of its modules)."""
