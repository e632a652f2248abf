"""What `caviar` and `caviar --help` print, at once: no library is imported for it."""

from __future__ import annotations

#: Every command, in the groups and the order in which people meet them.
FRONT_PAGE = """\
Usage: caviar COMMAND [--help]

Train many neural networks at once, and babysit one. A first sweep, on data that
is here already: caviar sweep digits

Train
  sweep      Train many models until a study holds --trials of them.
  refine     Narrow a study's space to where its best trials lie.
  advise     Say which params matter, and what to do next with a study.
  retest     Train the best trials again, to tell the good from the lucky.
  panda      Babysit one model: watch it live, steer it, go back, branch.
  predict    Print the class that a model predicts for each example.

Ask
  studies    List the studies of the database.
  show       Show a study and its best trial, or one trial with its curve.
  query      List the trials that an expression finds, sorted.
  sql        Run one SQL statement that reads, best over the views.
  dashboard  Show the database in optuna-dashboard, on this machine.

Keep
  export     Write a study, or the model of a trial, to a file.
  import     Read an exported study, or studies of Optuna.
  note       Print or replace the note of a study.
  tag        Tag a study.
  rename     Give a study another name.
  delete     Delete a study with all its trials.

Look after
  doctor     Look at this machine, the nodes of a cluster and the database.
  db         Bring the database to the schema of this caviar.

A trial is named STUDY/NUMBER. The database is caviar.db in this folder, or what
--storage or CAVIAR_STORAGE says. `caviar --version` prints the version.
"""
