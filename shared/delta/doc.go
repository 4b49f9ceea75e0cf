// Package delta is the engine: it starts a run, lists what changed, dispatches it, pushes one record after the other into
// the target, and closes the run with a report and a new cutoff. It decides everything and knows no vendor, no HTTP and no
// AWS: desks are shared/desk, the store is the three ports in ports.go.
//
// # Order is the algorithm
//
// Every step may be cut off anywhere and is taken up again by whoever comes next. What makes that safe is the order of
// effects, and nothing else:
//
//	start     the source's mark, then the run row, then the lane in the state row
//	list      the plan page's object, then its row; the row carries the place where listing goes on
//	dispatch  messages, then the note on the page row that they were sent; without outcomes they are sent again
//	push      read the source, then claim the ledger row with the intent, then write the target, then keep what it looks
//	          like, then what has become due, then the outcome
//	close     every page sealed, then the run's verdict, then the report, then cutoff and lane in one write
//
// So a page whose row is there has its object; a claim that is there may have an effect behind it and is looked up before
// anything is written again; an outcome that is there has its effects behind it; a cutoff that moved has only finished work
// behind it.
//
// # Where to look
//
//	start.go     which runs may start, with which mark: invariants 3 and 7
//	list.go      what may be dropped unread, where listing goes on: invariant 1
//	dispatch.go  what is sent, and sent again
//	push.go      one record: claim, read, merge, write, commit: invariants 1 and 2
//	merge.go     three-way per field: invariant 4
//	refs.go      people, companies and links: whom a field points to in the target
//	dispose.go   what follows from an error: invariants 11 and 12
//	close.go     sums, threshold, cutoff: invariants 3 and 8
//	held.go      what waits for a person, and decisions
//	verify.go    both desks as they are now
//	heal.go      what follows from each difference that a verification found
//	certify.go   the certificate of a verification
package delta
