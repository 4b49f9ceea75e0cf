// Package rttest is the other side of the proof that a migration between two Request Trackers is right: it brings up real
// servers, fills one with mail and life, lets scripted people work on both while a migration runs, and says from its own
// log and from both databases what the target must look like. It shares no code with the connector or the engine.
//
// Everything needs root on a Debian 12 machine and is used under the build tag rt:
//
//	src, err := rttest.Up(ctx, "src", 18081, "/srv/rt", rttest.Options{Role: rttest.SourceRole})
//	dst, err := rttest.Up(ctx, "dst", 18082, "/srv/rt", rttest.Options{Role: rttest.TargetRole})
//	script, err := rttest.Seed(ctx, src, seed)       // both take a snapshot, see Server.Reset
//	err = rttest.SeedTarget(ctx, dst, script)
//	seeded := script.Clone()                         // goes with the snapshots
//
//	people, err := rttest.NewPeople(src, dst, script, seed)
//	defer people.Close()
//	full := exec.Command("deltadesk", "run", "--kind", "full", ...) // as src.URL and dst.URL, account rttest.MigrationUser
//	err = full.Start()
//	err = people.Run(ctx, 80)                        // while it runs
//	err = full.Wait()
//	...
//	err = people.Run(ctx, 40)                        // between two deltas
//	... the last delta ...
//	oracle := rttest.Oracle{Source: src, Target: dst, Script: script}
//	result, err := oracle.Check(ctx)
//	fmt.Println(result)                              // tickets=… entries=… files=… lost=0 doubled=0 …
//
//	// Once more from the start:
//	err = errors.Join(src.Reset(ctx), dst.Reset(ctx))
//	script = seeded.Clone()
//	after, killed, err := rttest.KillRandomly(exec.Command("deltadesk", ...), rng, 20*time.Second)
package rttest
