"""Commands of ``recbole-missing``, one a file: arguments, a call, and printing."""
