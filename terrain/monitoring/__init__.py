"""What those on call look at: metrics for Prometheus, and whether the site is well.

``sources`` is the registry of what is measured, ``collector`` asks it, ``health`` has the
checks, ``access`` says who may see what, ``views`` answers.
"""
