"""What people see: messages, tables and figures, made from results and from nothing else.

command     what every command does around its work: one line for what goes wrong
messages    what duo says while it works
tables      results and comparisons as tables and sentences
figures     the same as pictures
rows        pictures of rows, minus another
several     several runs beside one another, as tables, sentences and pictures
ladder      the rungs of a ladder of information, as a table, a picture and sentences
accuracy    accuracies on downstream tasks, as tables and a picture
paper       the paper's figures and claims (a folder)
reproduce   a report of the paper, from its recipe
passage     one text as a page, token by token
written     a text as it is written, in the terminal
html        pages that need nothing but themselves
schema      what may stand in result.json
numbers     numbers with their intervals, and empty tables
markdown    tables and sentences as Markdown, and what CSV may hold
marks       what the marks in tables mean
width       tables that fit the screen
canvas      what figures are made on
names       names of the user's choice as they can be shown
"""
