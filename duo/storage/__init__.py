"""Files and folders that are whole or not there.

files        written under another name, then renamed
weights      of modules, as safetensors, with digests
processes    which of several processes writes and speaks
signals      a process is asked to stop
memory       what is freed stays with the process; a quick end
store        folders named by their content, anywhere
scales       a store that weighs what is added, and writes nothing
shared       the leaderboard that is meant where none is named; digests by their beginning
location     places: free or taken; shown without passwords
later        what is done as soon as somebody imports a module
"""
