import GuestMemory
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

@testable import PollEngine

/// Rows of hostile-inputs section A in which the network device that we drive is the hostile one.
@Suite struct HostileDeviceTests {
    private static let frame = (0..<60).map { UInt8($0) }

    private func poll(_ port: inout DevicePort) -> [[UInt8]] {
        var burst = ChainBurst()
        _ = port.receive(into: &burst, limit: 32)
        let frames = (0..<burst.count).map { bytes(of: burst, $0) }
        port.finishReceive()
        return frames
    }

    private func send(_ port: inout DevicePort) -> Int {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 64)
        defer { unsafe memory.deallocate() }
        let burst = unsafe ChainBurst.of([Self.frame], in: memory)
        let done = port.transmit(burst, from: 0, count: 1)
        port.finishTransmit()
        return done
    }

    /// What a port makes of one delivery: the frames and the drops. All buffers must be back, and
    /// the next good frame must arrive.
    private func received(
        mergeable: Bool = true,
        _ deliver: (DeviceRig) -> Void
    ) throws -> (frames: [[UInt8]], counters: PortCounters) {
        let rig = try DeviceRig(mergeable: mergeable)
        var port = try DevicePort(rig.pair)
        deliver(rig)
        let frames = poll(&port)
        #expect(rig.posted == 8)
        #expect(port.error == nil)
        rig.deliver(frame: Self.frame)
        #expect(poll(&port) == [Self.frame])
        return (frames, port.counters)
    }

    /// A port whose receive ring the device broke: it moves nothing any more, either way.
    private func expectBroken(
        _ error: QueueError,
        _ port: inout DevicePort,
        _ rig: DeviceRig
    ) {
        #expect(port.error == error)
        let available = rig.receive.availableIndex
        let transmitted = rig.transmit.availableIndex
        #expect(poll(&port) == [])
        #expect(send(&port) == 0)
        let arrived = port.requestNotifications()
        #expect(!arrived)
        #expect(rig.receive.availableIndex == available)
        #expect(rig.transmit.availableIndex == transmitted)
    }

    @Test func `HI-A40: a used id outside the ring breaks the pair, frames before it are good`()
        throws
    {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        rig.deliver(frame: Self.frame)
        rig.receive.use(8, 72)
        #expect(poll(&port) == [Self.frame])
        expectBroken(.usedRange, &port, rig)
    }

    @Test func `HI-A40: a used id outside the transmit ring breaks the pair`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        for _ in 0..<8 { #expect(send(&port) == 1) }
        rig.transmit.use(0xFFFF_FFFF)
        #expect(send(&port) == 0)
        expectBroken(.usedRange, &port, rig)
        #expect(port.underWay == 8)
    }

    @Test func `HI-A41: a used id that is given back twice breaks the pair`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        rig.deliver(frame: Self.frame)
        rig.receive.use(UInt32(rig.receive.slot(0)), 72)
        #expect(poll(&port) == [Self.frame])
        expectBroken(.usedNotHead, &port, rig)
    }

    @Test func `HI-A42: a used index ahead of what is outstanding breaks the pair`() throws {
        for index: UInt16 in [9, 0x8000, 0xFFFF] {
            let rig = try DeviceRig()
            var port = try DevicePort(rig.pair)
            rig.receive.usedIndex = index
            #expect(poll(&port) == [])
            expectBroken(.usedJump, &port, rig)
        }
    }

    @Test func `HI-A42: a transmit ring that runs ahead breaks the pair`() throws {
        let rig = try DeviceRig()
        var port = try DevicePort(rig.pair)
        for _ in 0..<8 { #expect(send(&port) == 1) }
        rig.transmit.usedIndex = 9
        #expect(send(&port) == 0)
        expectBroken(.usedJump, &port, rig)
    }

    @Test func `HI-A43: a used length above the buffer is cut to it and counted`() throws {
        for length in [2049, 65_536, Int(UInt32.max)] {
            let (frames, counters) = try received { rig in
                rig.deliver(DeviceRig.header() + Self.frame, length: length)
            }
            #expect(frames.map(\.count) == [2036])
            #expect(frames.first?.prefix(60) == Self.frame[...])
            #expect(counters.cutLengths == 1)
            #expect(counters.drops == [:])
        }
    }

    @Test func `HI-A44: a used length below the network header drops the frame`() throws {
        for length in 0..<12 {
            let (frames, counters) = try received { rig in
                rig.deliver(DeviceRig.header() + Self.frame, length: length)
            }
            #expect(frames == [])
            #expect(counters.drops == ["net/short-header": 1])
        }
    }

    @Test func `HI-A44: a header with nothing behind it is no frame`() throws {
        for mergeable in [true, false] {
            let (frames, counters) = try received(mergeable: mergeable) { rig in
                rig.deliver(DeviceRig.header())
            }
            #expect(frames == [])
            #expect(counters.drops == ["net/empty": 1])
        }
    }

    @Test func `HI-A45: a merged frame of 0 buffers is dropped`() throws {
        let (frames, counters) = try received { rig in
            rig.deliver(DeviceRig.header(buffers: 0) + Self.frame)
            rig.deliver(frame: Self.frame)
        }
        #expect(frames == [Self.frame])
        #expect(counters.drops == ["net/num-buffers": 1])
    }

    @Test func `HI-A45: a merged frame of more buffers than were returned is dropped`() throws {
        for claim in [2, 8, 9, 65_535] {
            let (frames, counters) = try received { rig in
                rig.deliver(DeviceRig.header(buffers: claim) + Self.frame)
            }
            #expect(frames == [])
            #expect(counters.drops == ["net/num-buffers": 1])
        }
        let (frames, counters) = try received { $0.deliver(pieces: [[1], [2], [3]], claiming: 4) }
        #expect(frames == [])
        #expect(counters.drops == ["net/num-buffers": 1])
    }

    @Test func `HI-A45: without the feature the number of buffers means nothing`() throws {
        for claim in [0, 2, 65_535] {
            let (frames, counters) = try received(mergeable: false) { rig in
                rig.deliver(DeviceRig.header(buffers: claim) + Self.frame)
            }
            #expect(frames == [Self.frame])
            #expect(counters.drops == [:])
        }
    }

    @Test func `HI-A45: empty buffers in a merged frame are no segments`() throws {
        let (frames, counters) = try received { $0.deliver(pieces: [[], [1, 2], [], [3]]) }
        #expect(frames == [[1, 2, 3]])
        #expect(counters.drops == [:])
    }

    @Test func `HI-A46: descriptors that the device rewrites have no effect`() throws {
        let rig = try DeviceRig(mergeable: false)
        var port = try DevicePort(rig.pair)
        for _ in 0..<20 {
            let known = (0..<8).map { rig.receive.descriptor($0) }
            let (head, address) = try present(rig.takeBuffer())
            for index in 0..<8 {
                rig.receive.setDescriptor(index, SplitDescriptor(address: .max, length: .max))
                rig.transmit.setDescriptor(index, SplitDescriptor(address: 0, length: 0))
            }
            rig.receive.write(DeviceRig.header() + Self.frame, at: address)
            rig.receive.use(UInt32(head), 72)
            #expect(poll(&port) == [Self.frame])
            // The buffer comes back as we know it, not as the table said last.
            #expect(rig.receive.descriptor(head).address == address)
            #expect(rig.receive.descriptor(head).length == 2048)
            #expect(send(&port) == 1)
            #expect(rig.takeTransmitted()?.suffix(60) == Self.frame[...])
            #expect(port.error == nil)
            // The others are offered still: put back what the driver wrote.
            for (index, known) in known.enumerated() where index != Int(head) {
                rig.receive.setDescriptor(index, known)
            }
        }
    }

    @Test func `HI-A31, HI-A32: a frame that needs an offload is dropped by name`() throws {
        let headers = [
            DeviceRig.header(gso: 1), DeviceRig.header(gso: 0x80), DeviceRig.header(flags: 1),
            DeviceRig.header(length: 61), DeviceRig.header(flags: 1, start: 61),
        ]
        for (index, header) in headers.enumerated() {
            let (frames, counters) = try received { $0.deliver(header + Self.frame) }
            #expect(frames == [])
            #expect(counters.drops == [index == 4 ? "net/csum-range" : "net/gso": 1])
        }
        let validated = DeviceRig.header(flags: 2, length: 34)
        let (frames, _) = try received { $0.deliver(validated + Self.frame) }
        #expect(frames == [Self.frame])
    }

    @Test func `HI-A33: a merged frame above the largest size is dropped, all buffers come back`()
        throws
    {
        let rig = try DeviceRig(size: 64)
        var port = try DevicePort(rig.pair)
        let pieces = [[UInt8]](repeating: [UInt8](repeating: 1, count: 2048), count: 40)
        rig.deliver(DeviceRig.header(buffers: 41) + [UInt8](repeating: 1, count: 2036))
        for piece in pieces { rig.deliver(piece) }
        #expect(poll(&port) == [])
        #expect(port.counters.drops == ["net/too-big": 1])
        #expect(rig.posted == 64)
    }

    @Test func `a device that returns garbage for ever costs a bounded turn and no memory`() throws
    {
        var dice = Dice(7)
        for _ in 0..<200 {
            let rig = try DeviceRig()
            var port = try DevicePort(rig.pair)
            for _ in 0..<50 where port.error == nil {
                switch dice.next() % 4 {
                case 0:
                    rig.receive.use(
                        UInt32(dice.next() % 9),
                        UInt32(truncatingIfNeeded: dice.next())
                    )
                case 1: rig.deliver(frame: Self.frame)
                case 2: rig.deliver(DeviceRig.header(buffers: Int(dice.next() % 4)) + Self.frame)
                default: rig.deliver([UInt8](repeating: UInt8(dice.next() & 0xFF), count: 64))
                }
                for frame in poll(&port) { #expect(frame.count <= 8 * 2048) }
            }
            #expect(port.counters.receivedPackets <= 50 * 8)
        }
    }
}
