"""The seam: what a router is, what it sees, and what it pays.

router       Router and Spec, the class a plugin subclasses; the pass under a route
trial        one batch on one backbone: all that a router may do
loss         what labels cost, of logits or part by part
meter        what deciding costs, counted where it happens
counter      counts operators in a thread as they are called
operators    what one operator costs
products     formulas of those that multiply
compose      small functions that routers are made of
calibration  offsets that hold a router to its budget
climb        good fixed patterns, where there are too many to list
uniform      random numbers as a function of their purpose
registry     routers by name, from every installed package
source       what of a plugin runs, as a digest
"""
