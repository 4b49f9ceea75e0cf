// Package delta is the engine: it starts a run, lists what changed, dispatches it, pushes one record after the other into
// the target, and closes the run with a report and a new cutoff. It decides everything and knows no vendor, no HTTP and no
// AWS: desks are shared/desk, the store is the three ports in ports.go.
//
// # Order is the algorithm
//
// Every step may be cut off anywhere and is taken up again by whoever comes next. What makes that safe is the order of
// effects, and nothing else:
//
//	start     the source's mark, then the lane in the state row with what the run begins with, then the run row
//	list      the plan page's object, then its row; the row carries the place where listing goes on
//	dispatch  messages, then the note on the page row that they were sent; without outcomes they are sent again
//	push      read the source, then claim the ledger row with the intent, then keep what the target is before (where the run
//	          can be undone), then write the target, then keep what it looks like, then what has become due, then the
//	          outcome
//	close     every page sealed, then the run's verdict, then the report, then cutoff and lane in one write
//
// So a page whose row is there has its object; a claim that is there may have an effect behind it and is looked up before
// anything is written again; an outcome that is there has its effects behind it; a cutoff that moved has only finished work
// behind it.
//
// That this order does what it is there for is checked: model/Migration.tla is the same order as a TLA+ model, small enough
// to try every interleaving of it (`make model`), and it shows what goes wrong without each of its rules. A comment such as
// "model: Claim" names the action of the model that a piece of code is. What happens around the code is in the model, too:
// people and time (model: Change, Tick), processes that die (model: Crash), and the end of all faults, after which every run
// has to end (model: Calm).
//
// # Where to look
//
//	start.go     which runs may start, with which mark: invariants 3 and 7
//	list.go      what may be dropped unread, where listing goes on: invariant 1
//	dispatch.go  what is sent, and sent again
//	push.go      one record: read it, and decide whether anything is to be written: invariant 1
//	replica.go   readings that are older than what is known: invariant 1
//	claim.go     the claim before the first write, the row after the last one: invariant 2
//	find.go      where a record is in the target already; gone.go what becomes of it when it no longer is
//	write.go     creates and changes, call by call; ours.go tells our half-done work from that of people
//	merge.go     three-way per field: invariant 4
//	events.go    deletions, spam, merges, and what comes back: invariant 5
//	revise.go    entries that were edited, redacted, hidden or shown after they were copied: invariants 4 and 5
//	moved.go     entries that went to another ticket, and copies that stay behind
//	refs.go      people, companies and links: whom a field points to in the target
//	due.go       what a later run takes up although the source does not list it
//	dispose.go   what follows from an error: invariants 11 and 12
//	close.go     sums, threshold, cutoff: invariants 3 and 8
//	held.go      what waits for a person, and decisions
//	sample.go    which tickets are odd
//	image.go     what a record of the target was before a run wrote to it
//	undo.go      a run taken back: what it created; putback.go: what it changed
//	survey.go    how a census (census.go) and a remap (remap.go) find out what to look at
//	verify.go    both desks as they are now
//	heal.go      what follows from each difference that a verification found
//	certify.go   the certificate of a verification
package delta
