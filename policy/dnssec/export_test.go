package dnssec

// SelfTestOnce is one round of [Client.Run].
var SelfTestOnce = (*Client).selfTest
