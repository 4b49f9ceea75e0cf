package main

import "github.com/deltadesk/deltadesk/shared/delta"

type undoCmd struct {
	RunID   string `arg:"" name:"run" help:"The sample or delta run, as status shows it."`
	DryRun  bool   `help:"Write nothing, and say what would be taken back and what would not."`
	Workers int    `default:"4" help:"How many batches are worked on at a time."`
}

// Run takes a run back. Cut off, the same command goes on.
func (c *undoCmd) Run(a *app) error {
	if err := atOnce(a, c.Workers); err != nil {
		return err
	}
	l, err := a.open(false, c.Workers)
	if err != nil {
		return err
	}
	defer l.close()
	rep, err := l.run(delta.Request{Kind: delta.Undo, Undo: c.RunID, Dry: c.DryRun})
	if err != nil {
		return err
	}
	return a.show(rep)
}
