complete --keep-order --exclusive --command tsh --arguments "(TSH_COMPLETE=fish tsh -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
