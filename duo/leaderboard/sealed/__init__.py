"""Scoring and training a router in processes where nothing that it must not know is in reach.

A child gets a folder with the backbone, the router and inputs, and answers with routes and what they cost; the parent,
which alone has the last labels, replays and scores. Another child, as fresh, gets the beginnings of sequences alone.

protocol     what parent and child write for one another; what a child says is checked
process      starts a child that inherits nothing, and ends it
scoring      the parent: asks for routes, replays and scores them
prefixes     the parent: whether routes are the same where nothing comes behind
training     both sides: a router is trained again where there is no hold-out
routing      the child: decides
"""
