// Package desk is the language that everything else speaks: what a help desk's records look like when no vendor is
// looking (Record, Entry, File), what a desk can be asked (Source, Target and the one-method capabilities), what is true
// of it (Traits), and how it says no (Error and the classes).
//
// It imports the standard library only. A Source or Target translates and never decides; decisions are made in
// shared/delta. What a desk can do is an interface; what is true of it is a trait, which shared/desk/desktest proves.
package desk
