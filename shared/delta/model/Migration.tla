------------------------------- MODULE Migration -------------------------------
\* The order of steps that shared/delta keeps, small enough for TLC to try every interleaving of it: claims, lost
\* answers, marks, windows and cutoffs. README.md says how to run it and how to read what it prints.
\*
\* For a reader who writes Go: a state is one value for each VARIABLE below. An action is a condition on the state (the
\* lines without a prime) and what the state is afterwards (x' is the new value of x; UNCHANGED names what stays).
\* Next is "any one action that can happen, happens"; nothing runs in between. [f EXCEPT ![k] = v] is a copy of the map
\* f with another value under k (@ is the old one). TLC goes through every state that can be reached, and looks whether
\* the properties at the end hold in each.
\*
\* What is simpler here than in the engine:
\*  - A ticket is a version: one number that grows with each change. Fields, entries, files, the three-way merge, held
\*    fields, deletions, merges, modes, people and links are left out. What a target ticket holds is the version that
\*    was last written to it, in one request.
\*  - Every window lists every ticket. A full run is a window's first run, from nothing; that it may drop what another
\*    window's run has read is more than the engine allows itself. Two runs of one window never begin at the same time.
\*  - A mark says how many versions of each ticket there were. What is listed up to a mark is complete; that is
\*    the source's duty, and desktest proves it. A ticket is listed once per run, with the newest version up to the mark.
\*  - A planner keeps nothing in memory between two of its steps, so cutting it off changes nothing: the step comes later.
\*  - There is no queue. A planned ticket without an outcome may reach any idle worker at any time, again and again, or
\*    never: that is what messages that are lost, doubled, late and in disorder come to (Deliver).
\*  - Every target can be searched by source id. In one that cannot, a create in doubt is held for a person.
\*  - The clock counts ticks. Settle, FindLag and Timeout are not counted: "its holder cannot be alive, and none of its
\*    requests at work" is asked of the state instead (Free). That the times are long enough is up to the configuration.
\*  - Looking a ticket up and writing down what was found are one step: cut off in between, it is looked up again.
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  Windows, Tickets, Workers,
  MaxVersion,  \* changes per ticket
  MaxTime,     \* ticks of the source's clock
  MaxRuns,     \* runs of all windows together
  Resolution,  \* of the source's stamps, in ticks
  Lag,         \* how long a change may stay invisible to a reading, in ticks
  Faults,      \* "on", "off", or "stop": on until they stop for good
  Without      \* the rules that are left out, to see what they are there for

\* The rules. The engine keeps these:
\*   "look up"       who takes a claim over looks the ticket up before creating it
\*   "wait"          a claim is taken over only when its holder cannot be alive and none of its requests at work
\*   "condition"     a claim is refused when the ledger row moved since it was read
\*   "not yet"       a reading older than what was listed is put back
\*   "began"         the ledger keeps when the reading began, not when it was carried out
\*   "margin"        a listed ticket is dropped only if that is later than its stamp + resolution + lag
\*   "mark first"    the next cutoff is the mark that was taken before anything was read
\*   "finished"      the cutoff moves only when every planned ticket has its outcome
\*   "due first"     a failed ticket becomes due before it gets its outcome
\*   "sent again"    a message whose ticket has no outcome is sent again
\* and leans on a source that shows changes late to keep these:
\*   "never back"    a reading shows nothing older than what an earlier reading brought into the target
\*   "numbered"      versions can be told apart also where they carry the same stamp (Stamp.Seq)
Keeps(rule) == rule \notin Without

VARIABLES
  now,      \* the source's clock
  changed,  \* by ticket: when each of its versions was made, oldest first
  target,   \* by ticket: the version of each of its copies in the target; there should never be two
  flight,   \* by ticket: requests on their way to the target that nobody waits for any more
  ledger,   \* by ticket: its row in the ledger
  due,      \* by window and ticket: 0, or the run that made the ticket due
  cutoff,   \* by window: the mark from which its next run lists
  run,      \* by window: its run, with plan and outcomes
  job,      \* by worker: what it is at, in its own memory
  calm      \* faults have stopped
vars == <<now, changed, target, flight, ledger, due, cutoff, run, job, calm>>

Idle == [at |-> "idle"]
Off(n) == [on |-> FALSE, no |-> n]

Init ==
  /\ now = 0
  /\ changed = [t \in Tickets |-> <<>>]
  /\ target = [t \in Tickets |-> <<>>]
  /\ flight = [t \in Tickets |-> {}]
  /\ ledger = [t \in Tickets |-> [target |-> FALSE,  \* there is one in the target, as far as we know
                                  base   |-> 0,      \* the version in it (the row's Digest); 0 while that is open
                                  began  |-> 0,      \* when the reading of it began
                                  claim  |-> FALSE,  \* somebody may be writing
                                  last   |-> <<>>]]  \* the run's entry that was carried out last
  /\ due = [w \in Windows |-> [t \in Tickets |-> 0]]
  /\ cutoff = [w \in Windows |-> [t \in Tickets |-> 0]]
  /\ run = [w \in Windows |-> Off(0)]
  /\ job = [p \in Workers |-> Idle]
  /\ calm = (Faults = "off")

--------------------------------------------------------------------------------
\* The source, and time.

\* People create a ticket or change it, any number of times within a tick. What they do ends early enough to be seen.
Change(t) ==
  /\ Len(changed[t]) < MaxVersion /\ (Lag = 0 \/ now + Lag < MaxTime)
  /\ changed' = [changed EXCEPT ![t] = Append(@, now)]
  /\ UNCHANGED <<now, target, flight, ledger, due, cutoff, run, job, calm>>

Tick ==
  /\ now < MaxTime
  /\ now' = now + 1
  /\ UNCHANGED <<changed, target, flight, ledger, due, cutoff, run, job, calm>>

Stamp(t, v) == changed[t][v] - (changed[t][v] % Resolution)

Max(S) == CHOOSE x \in S : \A y \in S : y <= x
InTarget(t) == Max({0} \cup {target[t][i] : i \in DOMAIN target[t]})

\* The versions that a reading which begins now may show: all changes older than the lag are in it, the others perhaps.
\* (Both ends of the difference are cut to whole ticks, so it must be more than the lag.)
Certain(t) == IF Lag = 0 THEN Len(changed[t]) ELSE Cardinality({v \in DOMAIN changed[t] : changed[t][v] + Lag < now})
Shown(t) == {v \in Certain(t)..Len(changed[t]) : Keeps("never back") => v >= InTarget(t)}

\* Version v is certainly older than u: desk.Stamp.Before.
Older(t, v, u) == IF v = 0 \/ Keeps("numbered") THEN v < u ELSE Stamp(t, v) < Stamp(t, u)

--------------------------------------------------------------------------------
\* The planner: a run of a window.

RECURSIVE Sum(_)
Sum(S) == IF S = {} THEN 0 ELSE LET w == CHOOSE w \in S : TRUE IN run[w].no + Sum(S \ {w})

\* A run begins: the source's mark first, then the run row. One write makes the run the only one of its window.
TakeMark(w) ==
  /\ ~run[w].on /\ Sum(Windows) < MaxRuns
  /\ run' = [run EXCEPT ![w] = [on |-> TRUE, no |-> @.no + 1,
                                until |-> [t \in Tickets |-> Len(changed[t])],
                                due |-> due[w], \* the due rows that it will answer
                                plan |-> [t \in Tickets |-> "unlisted"]]]
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, job, calm>>

\* Version v is certainly part of what the ledger's last reading saw.
Known(t, v) ==
  LET l == ledger[t] IN
  /\ l.target /\ ~l.claim
  /\ IF Keeps("margin") THEN l.began > Stamp(t, v) + Resolution + Lag ELSE l.began >= Stamp(t, v)

\* The place in the listing moves on with the page that is kept. What is known is dropped unread, what is due is planned.
ListPage(w, t) ==
  /\ run[w].on /\ run[w].plan[t] = "unlisted"
  /\ LET v == run[w].until[t]
         listed == v > cutoff[w][t]
     IN run' = [run EXCEPT ![w].plan[t] =
          IF run[w].due[t] # 0 THEN "planned"
          ELSE IF ~listed THEN "absent"
          ELSE IF Known(t, v) THEN "dropped" ELSE "planned"]
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, job, calm>>

Listed(w) == \A t \in Tickets : run[w].plan[t] # "unlisted"
Finished(w) == Listed(w) /\ \A t \in Tickets : run[w].plan[t] # "planned"

\* Everything is listed and has its outcome: the cutoff moves to the mark, and the lane is free, in one write.
Close(w) ==
  /\ run[w].on /\ IF Keeps("finished") THEN Finished(w) ELSE Listed(w)
  /\ cutoff' = [cutoff EXCEPT ![w] = IF Keeps("mark first") THEN run[w].until ELSE [t \in Tickets |-> Len(changed[t])]]
  /\ run' = [run EXCEPT ![w] = Off(@.no)]
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, job, calm>>

--------------------------------------------------------------------------------
\* A worker: one planned ticket. What it knows of the rows is what it read of them; job[p] is lost when it dies.

Becomes(p, j) == job' = [job EXCEPT ![p] = j]

\* A write to the ledger row of p's ticket: whoever read the row before and has not claimed it yet finds that it moved.
Wrote(p, j) == job' = [q \in Workers |->
  IF q = p THEN j
  ELSE IF job[q].at \in {"loaded", "read"} /\ job[q].t = job[p].t THEN [job[q] EXCEPT !.moved = TRUE]
  ELSE job[q]]

Entry(j, at) == [at |-> at, w |-> j.w, no |-> j.no, t |-> j.t]
\* What is left to do for a ticket that has been carried out: its due row goes, if that is what brought it here.
Conclude(j) == IF j.due = 0 THEN Entry(j, "done") ELSE Entry(j, "carried out") @@ [due |-> j.due]

\* A claim of this ticket is held by a process that lives.
Held(t) == \E p \in Workers : job[p].at \in {"taken over", "claimed", "written"} /\ job[p].t = t
\* A claim that is found may be taken over.
Free(t) == Keeps("wait") => ~Held(t) /\ flight[t] = {}

\* A message arrives, and the worker reads the ledger row. If this very entry was carried out before, only the outcome is
\* missing; if the ticket is certainly known, it is unchanged; if somebody else is at it, the message goes back.
Deliver(p, w, t) ==
  /\ job[p] = Idle /\ run[w].on /\ run[w].plan[t] = "planned"
  /\ LET l == ledger[t]
         r == run[w]
         j == [at |-> "loaded", w |-> w, no |-> r.no, t |-> t, listed |-> r.until[t], due |-> r.due[t],
               taken |-> l.claim, base |-> IF l.target /\ ~l.claim THEN l.base ELSE 0, moved |-> FALSE]
     IN IF l.last = <<w, r.no>> THEN Becomes(p, Conclude(j))
        ELSE /\ l.claim => Free(t)
             /\ Becomes(p, IF j.due = 0 /\ Known(t, j.listed) THEN Conclude(j) ELSE j)
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run, calm>>

\* The ledger row was read first: so a reading that is older than somebody's commit finds the row moved, and never writes.
Read(p) ==
  /\ job[p].at = "loaded"
  /\ LET j == job[p] IN \E v \in Shown(j.t) :
       /\ v > 0 /\ (Keeps("not yet") => ~Older(j.t, v, j.listed))
       /\ Becomes(p, IF v = j.base THEN Conclude(j)  \* unchanged
                     ELSE [at |-> "read", w |-> j.w, no |-> j.no, t |-> j.t, due |-> j.due, taken |-> j.taken,
                           moved |-> j.moved, v |-> v, began |-> now])
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run, calm>>

\* The reading is older than what was listed, or does not find the ticket at all: the message goes back.
NotYet(p) ==
  /\ job[p].at = "loaded" /\ \E v \in Shown(job[p].t) : Older(job[p].t, v, job[p].listed)
  /\ Becomes(p, Idle)
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run, calm>>

\* The intent is written down before anything is written to the target. From here on its state is open.
Claim(p) ==
  /\ job[p].at = "read" /\ ~job[p].taken /\ (Keeps("condition") => ~job[p].moved)
  /\ ledger' = [ledger EXCEPT ![job[p].t].claim = TRUE, ![job[p].t].base = 0]
  /\ Wrote(p, [job[p] EXCEPT !.at = "claimed"])
  /\ UNCHANGED <<now, changed, target, flight, due, cutoff, run, calm>>

\* As Claim, of a row that somebody claimed who never said what came of it.
TakeOver(p) ==
  /\ job[p].at = "read" /\ job[p].taken /\ ~job[p].moved
  /\ Wrote(p, [job[p] EXCEPT !.at = IF Keeps("look up") THEN "taken over" ELSE "claimed"])
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run, calm>>

\* The row moved since it was read: the message goes back, and the ticket is read and decided again.
ClaimRefused(p) ==
  /\ job[p].at = "read" /\ job[p].moved
  /\ Becomes(p, Idle)
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run, calm>>

\* What the claim's first holder did is seen in the target before anything is written. What is found is not created again.
LookUp(p) ==
  /\ job[p].at = "taken over"
  /\ LET t == job[p].t
         found == target[t] # <<>>
     IN /\ ledger' = [ledger EXCEPT ![t].target = @ \/ found]
        /\ Wrote(p, [job[p] EXCEPT !.at = "claimed", !.taken = ~found])
  /\ UNCHANGED <<now, changed, target, flight, due, cutoff, run, calm>>

Request(p) == [op |-> IF ledger[job[p].t].target THEN "apply" ELSE "create", v |-> job[p].v]
Effect(t, r) == target' = [target EXCEPT ![t] =
  IF r.op = "create" THEN Append(@, r.v) ELSE [i \in DOMAIN @ |-> IF i = 1 THEN r.v ELSE @[i]]]

\* A request that takes effect and is answered.
Create(p) ==
  /\ job[p].at = "claimed" /\ Request(p).op = "create"
  /\ Effect(job[p].t, Request(p))
  /\ Becomes(p, [job[p] EXCEPT !.at = "written"])
  /\ UNCHANGED <<now, changed, flight, ledger, due, cutoff, run, calm>>

Apply(p) ==
  /\ job[p].at = "claimed" /\ Request(p).op = "apply"
  /\ Effect(job[p].t, Request(p))
  /\ Becomes(p, [job[p] EXCEPT !.at = "written"])
  /\ UNCHANGED <<now, changed, flight, ledger, due, cutoff, run, calm>>

\* The row says what came of it and when the reading began, and the claim ends.
Commit(p) ==
  /\ job[p].at = "written"
  /\ LET j == job[p] IN
     /\ ledger' = [ledger EXCEPT ![j.t] = [target |-> TRUE, base |-> j.v, claim |-> FALSE, last |-> <<j.w, j.no>>,
                                           began |-> IF Keeps("began") THEN j.began ELSE now]]
     /\ Wrote(p, Conclude(j))
  /\ UNCHANGED <<now, changed, target, flight, due, cutoff, run, calm>>

\* The due row that brought the ticket here goes, unless it was made anew since it was listed.
ForgetDue(p) ==
  /\ job[p].at = "carried out"
  /\ due' = [due EXCEPT ![job[p].w][job[p].t] = IF @ = job[p].due THEN 0 ELSE @]
  /\ Becomes(p, Entry(job[p], "done"))
  /\ UNCHANGED <<now, changed, target, flight, ledger, cutoff, run, calm>>

\* A ticket that failed becomes due, and then gets its outcome.
MakeDue(p) ==
  /\ job[p].at = IF Keeps("due first") THEN "failed" ELSE "failed and told"
  /\ due' = [due EXCEPT ![job[p].w][job[p].t] = job[p].no]
  /\ Becomes(p, IF Keeps("due first") THEN Entry(job[p], "done") ELSE Idle)
  /\ UNCHANGED <<now, changed, target, flight, ledger, cutoff, run, calm>>

\* The last step of a ticket. A run that is over has no use for it.
PutOutcome(p) ==
  /\ job[p].at = "done" \/ (job[p].at = "failed" /\ ~Keeps("due first"))
  /\ LET j == job[p] IN
     /\ run' = IF run[j.w].on /\ run[j.w].no = j.no THEN [run EXCEPT ![j.w].plan[j.t] = "done"] ELSE run
     /\ Becomes(p, IF j.at = "done" THEN Idle ELSE Entry(j, "failed and told"))
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, calm>>

--------------------------------------------------------------------------------
\* Faults.

Fault == ~calm /\ UNCHANGED calm

\* The worker puts the message back for another attempt, or that was the last one.
PutBack(p) == \E j \in {Idle, Entry(job[p], "failed")} : Becomes(p, j)

\* The request went out and nobody hears of it: the answer got lost, or the worker died waiting. The claim stays.
AnswerLost(p) ==
  /\ Fault /\ job[p].at = "claimed"
  /\ flight' = [flight EXCEPT ![job[p].t] = @ \cup {Request(p)}]
  /\ PutBack(p)
  /\ UNCHANGED <<now, changed, target, ledger, due, cutoff, run>>

\* Such a request takes effect after all (also: it had, at once), or never got there.
LandLate(t) ==
  /\ \E r \in flight[t] : Effect(t, r) /\ flight' = [flight EXCEPT ![t] = @ \ {r}]
  /\ UNCHANGED <<now, changed, ledger, due, cutoff, run, job, calm>>

NeverArrives(t) ==
  /\ \E r \in flight[t] : flight' = [flight EXCEPT ![t] = @ \ {r}]
  /\ UNCHANGED <<now, changed, target, ledger, due, cutoff, run, job, calm>>

\* An error before any effect: the desk says no, or cannot be asked. The claim goes, unless it was taken over and what its
\* first holder did is still open.
Release(p) ==
  /\ Fault /\ job[p].at \in {"taken over", "claimed"}
  /\ ledger' = [ledger EXCEPT ![job[p].t].claim = job[p].taken]
  /\ \E j \in {Idle, Entry(job[p], "failed")} : Wrote(p, j)
  /\ UNCHANGED <<now, changed, target, flight, due, cutoff, run>>

\* The last attempt failed before anything was claimed.
GiveUp(p) ==
  /\ Fault /\ job[p].at \in {"loaded", "read"}
  /\ Becomes(p, Entry(job[p], "failed"))
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run>>

\* A process dies, anywhere, and another one takes its place. (With a request on its way: AnswerLost.)
Crash(p) ==
  /\ Fault /\ job[p] # Idle
  /\ Becomes(p, Idle)
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run>>

\* A run ends at the failure threshold, or is cancelled: the cutoff stays. Workers may still be at its tickets.
Stop(w) ==
  /\ Fault /\ run[w].on
  /\ run' = [run EXCEPT ![w] = Off(@.no)]
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, job>>

\* From here on there are no faults.
Calm ==
  /\ Faults = "stop" /\ ~calm
  /\ calm' = TRUE
  /\ UNCHANGED <<now, changed, target, flight, ledger, due, cutoff, run, job>>

--------------------------------------------------------------------------------
Work(p) ==
  \/ Read(p) \/ NotYet(p) \/ Claim(p) \/ TakeOver(p) \/ ClaimRefused(p) \/ LookUp(p) \/ Create(p) \/ Apply(p)
  \/ Commit(p) \/ ForgetDue(p) \/ MakeDue(p) \/ PutOutcome(p)

Settle(t) == LandLate(t) \/ NeverArrives(t)

Next ==
  \/ Tick \/ \E t \in Tickets : Change(t)
  \/ \E w \in Windows : TakeMark(w) \/ (\E t \in Tickets : ListPage(w, t)) \/ Close(w)
  \/ \E p \in Workers, w \in Windows, t \in Tickets : Deliver(p, w, t)
  \/ \E p \in Workers : Work(p)
  \/ \E t \in Tickets : Settle(t)
  \/ \E p \in Workers : AnswerLost(p) \/ Release(p) \/ GiveUp(p) \/ Crash(p)
  \/ \E w \in Windows : Stop(w)
  \/ Calm

Spec == Init /\ [][Next]_vars

\* Who goes on: the clock; a request on its way, to one end or the other; the planner's next step; a worker with what it
\* has in hand; and a planned ticket reaches a worker again and again. Nobody has to start runs, change tickets or fail.
Fair ==
  /\ WF_vars(Tick)
  /\ \A t \in Tickets : WF_vars(Settle(t))
  /\ \A w \in Windows : WF_vars(Close(w))
  /\ \A w \in Windows, t \in Tickets : WF_vars(ListPage(w, t))
  /\ \A w \in Windows, t \in Tickets : IF Keeps("sent again") THEN SF_vars(\E p \in Workers : Deliver(p, w, t)) ELSE TRUE
  /\ \A p \in Workers : WF_vars(Work(p))

FairSpec == Spec /\ Fair

--------------------------------------------------------------------------------
\* What must hold.

\* Invariant 2.
NothingTwice == \A t \in Tickets : Len(target[t]) <= 1

\* Invariants 1 and 3: behind every cutoff, whatever changed is in the target, at least as new as it was then, or is due.
NothingLost == \A w \in Windows, t \in Tickets : InTarget(t) >= cutoff[w][t] \/ due[w][t] # 0

\* An older state never takes the place of a newer one.
NeverOlder == [][\A t \in Tickets : \A i \in DOMAIN target[t] : target'[t][i] >= target[t][i]]_vars

\* Invariant 3: forward only, over finished work only, to the mark with which the run began.
CutoffForward == [][\A w \in Windows : cutoff'[w] # cutoff[w] =>
  Finished(w) /\ cutoff'[w] = run[w].until /\ \A t \in Tickets : cutoff'[w][t] >= cutoff[w][t]]_vars

\* Where a request may still be at work, there is a claim.
ClaimCovers == \A t \in Tickets : flight[t] # {} => ledger[t].claim

\* Invariant 12: when faults stop, every run ends.
EveryRunEnds == \A w \in Windows : (calm /\ run[w].on) ~> ~run[w].on

\* What must be possible, or the above would hold of a model in which nothing happens. TLC is asked to find each.

NoRunsEnd == [][\A w \in Windows : Close(w) => cutoff'[w] = cutoff[w]]_vars
NoRunEndsCalm == [][\A w \in Windows : Close(w) => ~calm]_vars
NoneIsFound == [][\A p \in Workers : LookUp(p) => target[job[p].t] = <<>>]_vars
NoneIsDropped == [](\A w \in Windows, t \in Tickets : run[w].on => run[w].plan[t] # "dropped")
NoDueGoes == [][\A p \in Workers : ForgetDue(p) => due' = due]_vars

\* Which one of the windows, tickets and workers it is makes no difference (for all but EveryRunEnds).
Symmetry == Permutations(Windows) \cup Permutations(Tickets) \cup Permutations(Workers)
================================================================================
