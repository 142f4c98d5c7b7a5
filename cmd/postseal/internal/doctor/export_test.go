package doctor

// Line is where in this package a finding was made, as FILE:LINE.
func Line(f Finding) string { return f.line }

const SendmailRules = sendmailRules
