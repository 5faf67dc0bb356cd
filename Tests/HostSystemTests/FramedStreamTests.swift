import Glibc
import HostSystem
import Testing

@Suite struct FramedStreamTests {
    /// A header of 4 bytes whose first is the payload's length; 255 is refused.
    private let format = FrameFormat(headerSize: 4, unsentLimit: 1 << 20) { header in
        header[0] == 255 ? nil : Int(header[0])
    }

    private func pair(
        _ deadlines: FramedStream.Deadlines = FramedStream.Deadlines()
    ) throws -> (FramedStream, UnixSocket) {
        let (near, far) = try UnixSocket.pair()
        return (FramedStream(near, format: format, deadlines: deadlines), far)
    }

    private func message(_ event: FramedStream.Event) -> Frame? {
        if case .message(let frame) = event { frame } else { nil }
    }

    private func fault(_ event: FramedStream.Event?) -> FrameFault? {
        if case .fault(let fault) = event { fault } else { nil }
    }

    private func isWaiting(_ event: FramedStream.Event) -> Bool {
        if case .waiting = event { true } else { false }
    }

    @Test func `messages that come together are taken one by one`() throws {
        let (stream, far) = try pair()
        _ = try far.send([2, 0, 0, 1, 7, 8, 0, 0, 0, 2, 1, 0][...])
        let first = try #require(message(stream.receive()))
        #expect(first.header == [2, 0, 0, 1])
        #expect(first.payload == [7, 8])
        let second = try #require(message(stream.receive()))
        #expect(second.header == [0, 0, 0, 2])
        #expect(second.payload.isEmpty)
        #expect(isWaiting(stream.receive()))
        #expect(stream.stallDeadline != nil)
    }

    @Test func `a message that comes byte by byte is put together`() throws {
        let (stream, far) = try pair()
        let bytes: [UInt8] = [3, 1, 2, 3, 4, 5, 6]
        for byte in bytes.dropLast() {
            _ = try far.send([byte][...])
            #expect(isWaiting(stream.receive()))
        }
        _ = try far.send([6][...])
        #expect(message(stream.receive())?.payload == [4, 5, 6])
        #expect(stream.stallDeadline == nil)
    }

    @Test func `HI-E24: who sends byte by byte does not keep the reader from others`() throws {
        let (stream, far) = try pair()
        let event = try EventFD()
        // The kernel ends a read at each byte that brings a descriptor.
        for byte in [200, 0, 0, 0] + [UInt8](repeating: 1, count: 200) {
            #expect(try far.send([byte][...], descriptors: [event.descriptor]) == 1)
        }
        var calls = 1
        while isWaiting(stream.receive()), calls < 100 {
            #expect(stream.wait(until: Deadline(milliseconds: 0)) != .cancelled)
            calls += 1
        }
        #expect((12...14).contains(calls), "204 bytes, at most 16 a call: \(calls)")
    }

    @Test func `descriptors belong to the message whose first byte they came with`()
        throws
    {
        let (stream, far) = try pair()
        let event = try EventFD()
        _ = try far.send([1, 0, 0, 0, 9][...])
        _ = try far.send([1, 0][...], descriptors: [event.descriptor])
        _ = try far.send([0, 0, 5][...])
        #expect(message(stream.receive())?.descriptors.isEmpty == true)
        let second = try #require(message(stream.receive()))
        #expect(second.descriptors.count == 1)
        #expect(!second.hadLateDescriptors)
        _ = try far.send([1, 0, 0, 0][...])
        #expect(isWaiting(stream.receive()))
        _ = try far.send([5][...], descriptors: [event.descriptor])
        let late = try #require(message(stream.receive()))
        #expect(late.hadLateDescriptors)
        #expect(late.descriptors.isEmpty)
    }

    @Test func `a refused header is told with its bytes, and nothing behind it is read`() throws {
        let (stream, far) = try pair()
        _ = try far.send([255, 1, 2, 3, 4][...])
        guard case .refused(let header) = fault(stream.receive()) else {
            Issue.record("not refused")
            return
        }
        #expect(header == [255, 1, 2, 3])
    }

    @Test func `the end of the stream names what is missing`() throws {
        let (stream, far) = try pair()
        _ = try far.send([5, 0, 0, 0, 1, 2][...])
        _ = stream.receive()
        try #require(shutdown(far.descriptor.rawValue, Int32(SHUT_WR)) == 0)
        guard case .shortPayload(2, of: 5) = fault(stream.receive()) else {
            Issue.record("not a short payload")
            return
        }
    }

    @Test func `header and payload leave in order when the socket takes only part of them`() throws
    {
        let (near, far) = try UnixSocket.pair()
        var small: Int32 = 1
        _ = unsafe setsockopt(
            near.descriptor.rawValue,
            SOL_SOCKET,
            SO_SNDBUF,
            &small,
            socklen_t(4)
        )
        let stream = FramedStream(near, format: format)
        let header: [UInt8] = [1, 2, 3, 4]
        let payload = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
        #expect(fault(stream.send(header, payload)) == nil)
        #expect(fault(stream.send([9, 9, 9, 9])) == nil)
        #expect(stream.hasUnsent)
        var received: [UInt8] = []
        while received.count < 200_008 {
            while let some = try far.receive(limit: 60000) { received += some.bytes }
            #expect(fault(stream.flush()) == nil)
        }
        #expect(received == header + payload + [9, 9, 9, 9])
        #expect(!stream.hasUnsent)
    }

    @Test func `descriptors leave with the first byte that the socket takes`() throws {
        let (stream, far) = try pair()
        let event = try EventFD()
        while !stream.hasUnsent {
            _ = stream.send([0, 0, 0, 0], [UInt8](repeating: 0, count: 4000))
        }
        #expect(fault(stream.send([0, 0, 0, 1], [5], descriptors: [event.descriptor])) == nil)
        var last: UnixSocket.Received?
        while stream.hasUnsent {
            while let some = try far.receive(limit: 4004) {
                if !some.descriptors.isEmpty { last = some }
            }
            _ = stream.flush()
        }
        while let some = try far.receive(limit: 4004) {
            if !some.descriptors.isEmpty { last = some }
        }
        #expect(last?.descriptors.count == 1)
        #expect(last?.bytes == [0, 0, 0, 1, 5])
    }

    @Test func `a wait ends when there is something, at the deadline, or when it is cancelled`()
        throws
    {
        let (stream, far) = try pair()
        #expect(stream.wait(until: Deadline(milliseconds: 5)) == .late)
        _ = try far.send([0][...])
        #expect(stream.wait(until: Deadline(milliseconds: 5000)) == .ready)
        let cancel = try EventFD()
        cancel.signal()
        let wait = stream.wait(until: Deadline(milliseconds: 5000), cancel: cancel.descriptor)
        #expect(wait == .cancelled)
    }
}
