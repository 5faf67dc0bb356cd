import Glibc
import HostSystem
import Testing
import Virtqueue

@testable import PollEngine

/// A TAP port over one end of a datagram socket pair: frames keep their boundaries as on an
/// interface, and no privilege is needed.
@Suite struct TapPortTests {
    struct Wire {
        let near: FileDescriptor
        let far: FileDescriptor

        init() throws {
            var ends: [Int32] = [-1, -1]
            let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
            #expect(unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0)
            near = FileDescriptor(owning: ends[0])
            far = FileDescriptor(owning: ends[1])
        }

        func send(_ bytes: [UInt8]) {
            #expect(unsafe write(far.rawValue, bytes, bytes.count) == bytes.count)
        }

        func receive() -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: 70_000)
            let count = unsafe read(far.rawValue, &bytes, bytes.count)
            return count < 0 ? nil : Array(bytes.prefix(count))
        }
    }

    static func bytes(_ burst: borrowing ChainBurst, _ index: Int) -> [UInt8] {
        let entry = unsafe burst.entries[index]
        var bytes: [UInt8] = []
        for piece in 0..<Int(entry.segmentCount) {
            let segment = unsafe burst.segments[Int(entry.firstSegment) + piece]
            unsafe bytes.append(
                contentsOf: UnsafeRawBufferPointer(
                    start: segment.pointer,
                    count: Int(segment.length)
                )
            )
        }
        return bytes
    }

    /// Puts frames into a burst, each cut into pieces of at most `piece` bytes.
    static func fill(_ burst: inout ChainBurst, _ frames: [[UInt8]], piece: Int, in pages: Mapping)
    {
        var at = 0
        burst.clear()
        for frame in frames {
            let first = burst.segmentCount
            var rest = frame[...]
            while !rest.isEmpty {
                let part = rest.prefix(piece)
                let place = unsafe UnsafeMutableRawBufferPointer(
                    start: pages.address + at,
                    count: part.count
                )
                unsafe place.copyBytes(from: part)
                unsafe burst.segments[burst.segmentCount] = Segment(
                    pointer: pages.address + at,
                    length: UInt32(part.count)
                )
                at += part.count
                burst.segmentCount += 1
                rest = rest.dropFirst(piece)
            }
            unsafe burst.entries[burst.count] = BurstEntry(
                firstSegment: UInt32(first),
                segmentCount: UInt16(burst.segmentCount - first),
                byteCount: UInt32(frame.count),
                head: 0
            )
            burst.count += 1
        }
    }

    @Test func `frames are read whole, in order, at most 32 a turn`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 64)
        for number in 0..<40 { wire.send([UInt8](repeating: UInt8(number), count: 60 + number)) }
        #expect(port.receive(into: &burst, limit: 64) == 32)
        for number in 0..<32 {
            let bytes = Self.bytes(burst, number)
            #expect(bytes == [UInt8](repeating: UInt8(number), count: 60 + number))
        }
        burst.clear()
        #expect(port.receive(into: &burst, limit: 64) == 8)
        #expect(port.counters.receivedPackets == 40)
        #expect(port.counters.receivedBytes == UInt64((0..<40).reduce(0) { $0 + 60 + $1 }))
    }

    @Test func `the longest frame is not cut`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 64)
        let frame = (0..<65_553).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        wire.send(frame)
        #expect(port.receive(into: &burst, limit: 32) == 1)
        #expect(Self.bytes(burst, 0) == frame)
    }

    @Test func `what was read and is written again was copied twice`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 64)
        for _ in 0..<3 { wire.send([UInt8](repeating: 5, count: 60)) }
        #expect(port.receive(into: &burst, limit: 32) == 3)
        #expect(port.counters.copies == 0)
        port.transmit(burst, from: 0, count: 3)
        #expect(port.counters.copies == 6)
    }

    @Test func `an empty read is not repeated at once`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 64)
        #expect(port.receive(into: &burst, limit: 32) == 0)
        wire.send([UInt8](repeating: 1, count: 60))
        for _ in 0..<TapPort.restingTurns { #expect(port.receive(into: &burst, limit: 32) == 0) }
        #expect(port.receive(into: &burst, limit: 32) == 1)
    }

    @Test func `a frame in pieces is written as one, dropped ones are not`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 2048)
        let pages = try Mapping.anonymous(length: 65_536)
        let frames = [[UInt8](1...100), [UInt8](repeating: 9, count: 60), [UInt8](50...200)]
        Self.fill(&burst, frames, piece: 7, in: pages)
        unsafe burst.entries[1].isDropped = 1
        port.transmit(burst, from: 0, count: 3)
        #expect(wire.receive() == frames[0])
        #expect(wire.receive() == frames[2])
        #expect(wire.receive() == nil)
        #expect(port.counters.transmittedPackets == 2)
        #expect(port.counters.transmittedBytes == UInt64(frames[0].count + frames[2].count))
        #expect(port.counters.copies == 2)
    }

    @Test func `a frame in more pieces than one write takes is dropped by name`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 2048)
        let pages = try Mapping.anonymous(length: 65_536)
        Self.fill(&burst, [[UInt8](repeating: 1, count: 1025)], piece: 1, in: pages)
        port.transmit(burst, from: 0, count: 1)
        #expect(wire.receive() == nil)
        #expect(port.counters.drops == ["tap/pieces": 1])
        #expect(port.counters.copies == 0)
        Self.fill(&burst, [[UInt8](repeating: 1, count: 1024)], piece: 1, in: pages)
        port.transmit(burst, from: 0, count: 1)
        #expect(wire.receive()?.count == 1024)
    }

    @Test func `a full interface queue drops by name and does not wait`() throws {
        let wire = try Wire()
        var port = try TapPort(wire.near)
        var burst = ChainBurst(longestChain: 64)
        let pages = try Mapping.anonymous(length: 1 << 20)
        let frames = [[UInt8]](repeating: [UInt8](repeating: 1, count: 9000), count: 32)
        Self.fill(&burst, frames, piece: 9000, in: pages)
        for _ in 0..<40 { port.transmit(burst, from: 0, count: 32) }
        let sent = port.counters.transmittedPackets
        let dropped = port.counters.drops["tap/no-room"] ?? 0
        #expect(dropped > 0)
        #expect(sent + dropped == 40 * 32)
    }

    @Test func `a missing interface is named with the command that makes it`() {
        #expect(throws: TapError.missing("vpcitest-none")) { try TapPort.open("vpcitest-none") }
        #expect(TapError.missing("tap7").description.contains("ip tuntap add dev tap7 mode tap"))
    }

    @Test(arguments: ["", "a-name-of-16-chr", "has blank", "a/b", "tab\t", "delete\u{7F}"])
    func `what cannot be an interface name is refused before any call`(name: String) {
        #expect(throws: TapError.name(name)) { try TapPort.open(name) }
    }

    @Test func `an interface that is no TAP is refused`() {
        #expect(throws: TapError.self) { try TapPort.open("lo") }
    }

    @Test func `each way of failing to open has its own remedy`() {
        #expect(TapError(opening: "t", Errno(EPERM)) == .denied("t"))
        #expect(TapError(opening: "t", Errno(EACCES)) == .denied("t"))
        #expect(TapError(opening: "t", Errno(EBUSY)) == .busy("t"))
        #expect(TapError(opening: "t", Errno(EINVAL)) == .notATap("t"))
        #expect(TapError(opening: "t", Errno(ENOENT)) == .noDriver)
        #expect(TapError(opening: "t", Errno(ENODEV)) == .noDriver)
        #expect(TapError(opening: "t", Errno(EIO)) == .other("t", Errno(EIO)))
        #expect(TapError.denied("t").description.contains("CAP_NET_ADMIN"))
    }

    @Test func `an interface that is gone is left alone, frames for it are counted`() throws {
        let ends = try Wire()
        var port = try TapPort(ends.near)
        #expect(shutdown(ends.far.rawValue, Int32(SHUT_WR)) == 0)
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 0)
        #expect(port.counters.isGone == 1)
        let pages = try Mapping.anonymous(length: 4096)
        Self.fill(&burst, [[1, 2, 3], [4]], piece: 64, in: pages)
        port.transmit(burst, from: 0, count: 2)
        #expect(port.counters.drops == ["tap/gone": 2])
        #expect(ends.receive() == nil)
        #expect(port.receive(into: &burst, limit: 32) == 0)
    }
}
