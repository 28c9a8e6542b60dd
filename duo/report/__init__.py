"""What people see: messages, tables and figures, made from results and from nothing else.

messages    what duo says while it works
tables      results and comparisons as tables and sentences
figures     the same as pictures
"""
