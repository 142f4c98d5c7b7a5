package milter

// Reply shows the frame's content of an answer with a text.
func Reply(code, enhanced, text string) string {
	m := reply(code, enhanced, text).Response()
	return string(m.Code) + string(m.Data)
}
