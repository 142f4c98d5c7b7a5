// Package house holds no code, only tests: the rules by which this repository
// is built, checked by machine so that no review has to.
//
// They say which package may import which (and that there are no circles),
// what may stand at the top of the repository, that each folder explains
// itself in exactly one package comment, that no package runs code or keeps
// changing state before main starts, how long a file and a function may grow,
// and a few matters of wording. A rule that stands in the way is changed here,
// in the table or the constant that states it, together with the code that
// needs it.
package house
