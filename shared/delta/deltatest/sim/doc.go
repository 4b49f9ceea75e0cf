// Package sim plays whole migrations in one process, thousands of them: two desks on which people work all the time,
// planners and workers that interleave at every call, die anywhere and wake up in disorder, desks and stores that fail in
// every way of which we know, and a clock that belongs to the simulation. When people and faults have come to rest, an
// oracle that shares no code with the engine holds both desks' own histories against each other.
//
//	params.go    what one world is like: traits of both desks, processes, policies
//	script.go    what happens in it and when: people, faults, crashes, messages; each event can be left out
//	desk.go      a desk with its history; people.go what people do on it; source.go and target.go how the engine sees it
//	procs.go     processes that take turns at every call, and die
//	faults.go    what goes wrong with a call; store.go the same for rows, objects and messages
//	play.go      the operator: full runs, deltas, decisions, changes of scope and mapping, a restored ledger
//	oracle.go    what must have come of it
//	many.go      many runs, what occurred in them, and the shortest trace of one that failed
//
// Everything that happens follows from one seed, so a failure is replayed by its number.
package sim
