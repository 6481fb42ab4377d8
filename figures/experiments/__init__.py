"""What the experiments share.

images     pictures and their classes, from packages, files and folders
training   the loop: epoch by epoch, saved as it goes, and resumed with the same bits
processes  many runs, on all cores
table      results: one row for each run and recorded epoch, as a file; means and standard errors
claims     what a paper says beside what was measured
"""
