// Package audit finds the file descriptors that reach programs they were not
// meant for. It is to descriptors what a memory checker is to memory.
//
// A recorder watches programs and tells what they do as a stream of [Event]s.
// [Classify] makes a [Report] of it: a list of [Finding]s, each with the line
// of code that created the descriptor and the program that received it. Package
// audit/report prints reports, [ParseSuppressions] reads which findings the
// user does not want to see, and [WritePolicy] writes the policy under which
// "indirect run" mends what was found.
//
// It would rather miss a leak than accuse a program falsely: a descriptor whose
// creation is not known for certain is never called a leak.
package audit
