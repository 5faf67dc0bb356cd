import HostSystem
import Testing
import Virtqueue

@testable import PollEngine

@Suite struct EthernetHeaderTests {
    static let frame = Frame.make(to: [2, 1, 0xA0, 3, 4, 0xF5], from: [6, 7, 8, 9, 10, 0xFB])

    static func header(_ frame: [UInt8], piece: Int) throws -> EthernetHeader? {
        let pages = try Mapping.anonymous(length: 4096)
        var burst = ChainBurst(longestChain: 128)
        TapPortTests.fill(&burst, [frame], piece: piece, in: pages)
        return EthernetHeader(burst, unsafe burst.entries[0])
    }

    @Test(arguments: 1...64)
    func `addresses are the same however the frame is cut`(piece: Int) throws {
        let header = try #require(try Self.header(Self.frame, piece: piece))
        #expect(header.destination == 0xF504_03A0_0102)
        #expect(header.source == 0xFB0A_0908_0706)
        #expect(!header.isGroup)
    }

    @Test func `a frame of 14 bytes has a header, one of 13 has none`() throws {
        for piece in [1, 5, 64] {
            #expect(try Self.header(Array(Self.frame.prefix(14)), piece: piece) != nil)
            #expect(try Self.header(Array(Self.frame.prefix(13)), piece: piece) == nil)
        }
    }

    @Test func `an entry without segments has no header, whatever length it claims`() throws {
        var burst = ChainBurst(longestChain: 4)
        burst.count = 1
        let entry = BurstEntry(firstSegment: 0, segmentCount: 0, byteCount: 64, head: 0)
        #expect(EthernetHeader(burst, entry) == nil)
    }

    @Test func `broadcast and multicast are groups`() throws {
        let all = Frame.make(to: Frame.broadcast, from: Frame.station(1))
        #expect(try Self.header(all, piece: 64)?.isGroup == true)
        let some = Frame.make(to: [1, 0, 0x5E, 0, 0, 1], from: Frame.station(1))
        #expect(try Self.header(some, piece: 3)?.isGroup == true)
    }
}
