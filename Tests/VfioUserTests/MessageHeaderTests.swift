import Testing
import VfioUser

@Suite struct MessageHeaderTests {
    @Test func `VFU-H-01: the header is 16 bytes and counts itself`() throws {
        let header = MessageHeader(identifier: 3, command: 4, messageSize: 32)
        #expect(header.encoded == [3, 0, 4, 0, 32] + [UInt8](repeating: 0, count: 11))
        #expect(MessageHeader(header.encoded) == header)
        #expect(MessageHeader(Array(header.encoded.dropLast())) == nil)
    }

    @Test func `VFU-H-03: an error reply says so in its flags and carries the number`() throws {
        let bytes: [UInt8] = [0x3c, 0, 8, 0, 16, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0]
        let header = try #require(MessageHeader(bytes))
        #expect(header.isReply && !header.isCommand)
        #expect(header.flags.contains(.error) && header.error == 22)
        #expect(header.encoded == bytes)
    }

    @Test func `VFU-H-07: command 14 does not exist`() {
        #expect(Command(rawValue: 14) == nil)
        #expect(Command(rawValue: 0) == nil && Command(rawValue: 19) == nil)
        #expect(Command.allCases.count == 17)
    }
}
