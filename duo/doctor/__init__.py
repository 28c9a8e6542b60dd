"""Whether duo can work on this machine: what a bug report begins with.

finding      a line of the report, and what is wrong with it
machine      versions, processor, devices, memory, terminal
places       folders that are written, and their free space
launch       which of several processes this one is, as the environment says
plugins      whether every router loads
trial        a ten-second test of a toy
"""
