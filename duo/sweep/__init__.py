"""Sweeps: a recipe under many values at once, by processes of this machine or jobs of SLURM.

A sweep is one comparison (`compare.over`) that many processes make: each makes one group from one seed, as a run of its
own, and what they found is put together. Its folder is that of the comparison.

__main__  the command
typed     what was typed: values, and how to run them
runs      the comparison that a sweep is, and the runs that make it
tasks     what there is to do: backbones that runs share, and runs
queue     tasks, so many at once, each when what it needs is there
machine   where they run: processes of this machine, or jobs of SLURM
work      what such a process does
gather    what runs found, as one comparison
dry       what would run, and its planned hours
"""
