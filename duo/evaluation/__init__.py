"""Numbers: what a router reaches, what it costs, and how sure that is.

evaluate     scores a hold-out, or routes of it; decides what is within budget
record       what one batch gave, kept while others are still searched
foresee      how long a search will take
decide       asks a router for its routes without labels, and what they cost
size         how much a router holds
timing       wall time beside all big, and whether the counted costs explain it
untouched    whether the backbone was left alone
score        one router on one hold-out; the schema of all that is written
intervals    over documents and seeds: of losses, paired differences, gap closed
resample     the same of any statistic of sequences; of shares, and of the largest
trace        token by token: routes, losses, what candidates are worth
verdict      claims, and whether intervals decide them
knowable     what knowledge is worth as a prediction, and what routes make of it
difficulty   how hard tokens are, and what compute can do about it
categories   what kind of thing a token is
passage      one text, token by token
row          one router on every hold-out, and beside others
result       what a run of one router found
downstream   accuracies on tasks
comparison   what a run of many rows found
finished     runs as rows that may stand beside those of others, on the same tokens
several      the rows of several runs as one comparison
format       to and from files
provenance   where a result comes from
"""
