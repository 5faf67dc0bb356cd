import Testing

@testable import VhostUser

@Suite struct MessageTests {
    @Test func `VU-H-06: a reply has the request's id and the reply flag alone`() {
        let reply = Message.reply(to: 1, payload: NumberPayload.encode(0x1_4000_8000))
        #expect(reply == bytes("01000000 05000000 08000000 0080004001000000"))
    }

    @Test func `a request has version 1, and the wish for a reply where there is one`() {
        #expect(Message(.getFeatures).encoded == bytes("01000000 01000000 00000000"))
        let kick = Message(
            .setVringKick,
            needsReply: true,
            payload: VringDescriptor(index: 1, hasDescriptor: true).encoded
        )
        #expect(kick.encoded == bytes("0c000000 09000000 08000000 0100000000000000"))
    }

    @Test func `protocol features are one number`() {
        let message = Message(.setProtocolFeatures, payload: NumberPayload.encode(0x1a02f))
        #expect(message.encoded == bytes("10000000 01000000 08000000 2fa0010000000000"))
    }

    @Test func `a header decodes from its 12 bytes and not from fewer`() {
        let wire = bytes("05000000 09000000 28000000")
        let header = MessageHeader(wire)
        #expect(header == MessageHeader(request: 5, flags: 9, payloadSize: 40))
        #expect(header?.needsReply == true)
        #expect(header?.isReply == false)
        #expect(MessageHeader(Array(wire.dropLast())) == nil)
        #expect(MessageHeader([]) == nil)
    }

    @Test(arguments: [0, 2, 3, 0x11, 0x21, 0x8000_0001, 0xffff_ffff] as [UInt32])
    func `HI-D4, VU-H-01: flags without version 1 or with unknown bits are not well formed`(
        _ flags: UInt32
    ) {
        #expect(!MessageHeader(request: 1, flags: flags, payloadSize: 0).isWellFormed)
    }

    @Test(arguments: [1, 5, 9, 13] as [UInt32])
    func `version 1 with the known flags is well formed`(_ flags: UInt32) {
        #expect(MessageHeader(request: 1, flags: flags, payloadSize: 0).isWellFormed)
    }
}
