complete --keep-order --exclusive --command tctl --arguments "(TCTL_COMPLETE=fish tctl -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
