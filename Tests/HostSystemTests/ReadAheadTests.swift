import Glibc
import HostSystem
import Testing

/// Streams that read as much as is there.
@Suite struct ReadAheadTests {
    /// A header of 4 bytes whose first two are the payload's length; 0xffff is refused.
    private static func format(_ readAhead: Int) -> FrameFormat {
        FrameFormat(headerSize: 4, unsentLimit: 1 << 20, readAhead: readAhead) { header in
            let size = Int(header[0]) | Int(header[1]) << 8
            return size == 0xffff ? nil : size
        }
    }

    private func pair(_ readAhead: Int = 64) throws -> (FramedStream, UnixSocket) {
        let (near, far) = try UnixSocket.pair()
        return (FramedStream(near, format: Self.format(readAhead)), far)
    }

    private func message(_ event: FramedStream.Event) -> Frame? {
        if case .message(let frame) = event { frame } else { nil }
    }

    private func isWaiting(_ event: FramedStream.Event) -> Bool {
        if case .waiting = event { true } else { false }
    }

    private func bytes(_ mark: UInt8, _ payload: [UInt8] = []) -> [UInt8] {
        [UInt8(truncatingIfNeeded: payload.count), UInt8(payload.count >> 8), 0, mark] + payload
    }

    @Test func `messages that came together are there without the socket`() throws {
        let (stream, far) = try pair()
        _ = try far.send((bytes(1, [7, 8]) + bytes(2) + bytes(3, [9]).dropLast())[...])
        #expect(message(stream.receive())?.payload == [7, 8])
        #expect(stream.hasAhead)
        // Nobody waits for a socket that has nothing to tell.
        #expect(stream.wait(until: Deadline(milliseconds: 60_000)) == .ready)
        #expect(message(stream.receiveAhead())?.header == bytes(2))
        // Of the third only a part is there, which is taken and waited for.
        #expect(stream.hasAhead && isWaiting(stream.receiveAhead()))
        #expect(!stream.hasAhead && stream.stallDeadline != nil)
        #expect(stream.wait(until: Deadline(milliseconds: 1)) == .late)
        _ = try far.send([9])
        #expect(isWaiting(stream.receiveAhead()), "the socket is not read")
        #expect(message(stream.receive())?.payload == [9])
        #expect(stream.stallDeadline == nil)
    }

    @Test func `a read that was filled to the brim leaves the rest to the next one`() throws {
        let (stream, far) = try pair(8)
        _ = try far.send((bytes(1, [5, 6, 7, 8]) + bytes(2))[...])
        #expect(message(stream.receive())?.payload == [5, 6, 7, 8])
        #expect(!stream.hasAhead && isWaiting(stream.receiveAhead()))
        #expect(message(stream.receive())?.header == bytes(2))
        #expect(isWaiting(stream.receive()))
    }

    @Test(arguments: [1, 4, 5, 63, 64, 65, 200, 4096, 60_000])
    func `payloads of every length arrive, whatever was read with them`(_ count: Int) throws {
        let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        for readAhead in [0, 4, 7, 64, 4096] {
            let (stream, far) = try pair(readAhead)
            let all = bytes(1, payload) + bytes(2) + bytes(3, payload)
            #expect(try far.send(all[...]) == all.count)
            var got: [Frame] = []
            for _ in 0..<200 where got.count < 3 {
                if let frame = message(stream.receive()) { got.append(frame) }
            }
            try #require(got.count == 3)
            #expect(got[0].payload == payload && got[2].payload == payload)
            #expect(got.map(\.header[3]) == [1, 2, 3])
            #expect(isWaiting(stream.receive()))
        }
    }

    @Test func `VFU-H-10: descriptors belong to their message, not to those read with it`() throws {
        let (stream, far) = try pair()
        let event = try EventFD().descriptor
        _ = try far.send((bytes(1) + bytes(2, [1]))[...])
        _ = try far.send(bytes(3, [1, 2])[...], descriptors: [event, event])
        _ = try far.send(bytes(4)[...])
        _ = try far.send(bytes(5)[...], descriptors: [event])
        var counts: [Int] = []
        for _ in 0..<5 {
            let frame = try #require(message(stream.receive()))
            #expect(!frame.hadLateDescriptors)
            counts.append(frame.descriptors.count)
        }
        #expect(counts == [0, 0, 2, 0, 1])
    }

    @Test func `VFU-H-10: descriptors of a message that is cut anywhere are its own`() throws {
        let event = try EventFD().descriptor
        let second = bytes(2, [1, 2, 3])
        for cut in 1..<second.count {
            let (stream, far) = try pair()
            _ = try far.send(bytes(1)[...])
            _ = try far.send(second[..<cut], descriptors: [event])
            #expect(message(stream.receive())?.descriptors.isEmpty == true)
            #expect(isWaiting(stream.receive()))
            _ = try far.send((second[cut...] + bytes(3))[...])
            let frame = try #require(message(stream.receive()))
            #expect(frame.descriptors.count == 1 && frame.payload == [1, 2, 3])
            #expect(message(stream.receive())?.descriptors.isEmpty == true)
        }
    }

    @Test func `VFU-H-10: descriptors behind what was read before are late`() throws {
        let event = try EventFD().descriptor
        for readAhead in [64, 4] {
            let (stream, far) = try pair(readAhead)
            _ = try far.send([2, 0, 0, 1, 5])
            #expect(isWaiting(stream.receive()))
            _ = try far.send([6][...], descriptors: [event])
            let frame = try #require(message(stream.receive()))
            #expect(frame.hadLateDescriptors && frame.descriptors.isEmpty)
        }
    }

    @Test func `a refused header is told, and what was read with it is no message`() throws {
        let (stream, far) = try pair()
        _ = try far.send([0xff, 0xff, 1, 2, 0, 0, 0, 9][...])
        guard case .fault(.refused(header: [0xff, 0xff, 1, 2])) = stream.receive() else {
            Issue.record("not refused")
            return
        }
    }

    @Test func `the end behind a message is told after it`() throws {
        let (stream, far) = try pair()
        _ = try far.send((bytes(1) + [3, 0])[...])
        try #require(shutdown(far.descriptor.rawValue, Int32(SHUT_WR)) == 0)
        #expect(message(stream.receive()) != nil)
        guard case .fault(.shortHeader(2)) = stream.receive() else {
            Issue.record("not the end of a header")
            return
        }
    }
}
