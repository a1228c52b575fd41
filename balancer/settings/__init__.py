"""The settings, in groups, each of which is given whole to the part of the program that needs it.

settings    all groups, read from the environment
base        what the groups have in common
server, access, http, engine, workers, storage, speech, limits, jobs, scheduling
            the groups

The environment knows no groups: the variable of a setting is `CHORUS_` and the field's name in upper case, so no two
groups may have a field of one name.
"""
