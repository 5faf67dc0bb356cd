import GuestMemory
import HostSystem
import Testing
import VhostUser
import VirtioSpec
import Virtqueue

@testable import vhost_pci

@Suite struct NetRingsTests {
    /// A device that works both rings of a pair over the pair's own memory.
    private struct Device: ~Copyable {
        var receive: SplitDeviceQueue
        var transmit: SplitDeviceQueue

        /// Moves every sent frame into a receive buffer; returns how many.
        mutating func loop(_ memory: MemoryTable, change: (inout [UInt8]) -> Void = { _ in }) -> Int
        {
            var count = 0
            while let sent = transmit.takeChain() {
                var bytes = sent.readable.flatMap { memory.read($0.address, Int($0.length)) ?? [] }
                change(&bytes)
                guard let room = receive.takeChain(), let first = room.writable.first,
                    memory.write(bytes, at: first.address)
                else { return count }
                receive.release(head: room.head, written: UInt32(bytes.count))
                transmit.release(head: sent.head, written: 0)
                count += 1
            }
            return count
        }
    }

    private func table(_ rings: NetRings) throws -> MemoryTable {
        let region = unsafe MemoryRegion(
            start: NetRings.guestAddress,
            size: rings.region.size,
            host: rings.mapping.address
        )
        return try MemoryTable([try #require(region)], owners: [rings.mapping])
    }

    private func frame(_ sequence: UInt64) -> TrafficFrame {
        TrafficFrame(
            destination: MACAddress(local: 1),
            source: MACAddress(local: 2),
            kind: .payload,
            sequence: sequence,
            received: 0,
            sentAt: 0,
            length: 60 + Int(sequence % 1459)
        )
    }

    @Test func `frames come back whole and in order over many turns of the rings`() throws {
        let rings = try NetRings(features: [.version1, .eventIndex])
        let memory = try table(rings)
        var device = Device(
            receive: try SplitDeviceQueue(rings.configurations[0], memory: memory),
            transmit: try SplitDeviceQueue(rings.configurations[1], memory: memory)
        )
        var next: UInt64 = 0
        for round in 0..<40 {
            let first = next
            for sequence in first..<(first + 200) {
                guard rings.canSend(), rings.send(frame(sequence)) else { break }
                next += 1
            }
            #expect(next == first + 200, "round \(round)")
            _ = rings.flushSent()
            let moved = device.loop(memory)
            #expect(moved == 200)
            var expected = first
            let arrived = rings.receive { arrived in
                #expect(arrived == frame(expected))
                expected += 1
            }
            #expect(arrived.count == 200)
        }
        #expect(rings.error == nil)
    }

    @Test func `no more frames are queued than there are buffers`() throws {
        let rings = try NetRings(features: .version1)
        var count: UInt64 = 0
        while rings.canSend(), rings.send(frame(count)) { count += 1 }
        #expect(count == UInt64(NetRings.ringSize))
        #expect(!rings.send(frame(count)))
    }

    /// Rings, their memory, and a device that returns these buffers, then good ones.
    private func received(
        _ features: FeatureBits,
        _ buffers: [(written: UInt32, count: UInt8)]
    ) throws -> (frames: [TrafficFrame?], rings: NetRings) {
        let rings = try NetRings(features: features)
        let memory = try table(rings)
        var device = Device(
            receive: try SplitDeviceQueue(rings.configurations[0], memory: memory),
            transmit: try SplitDeviceQueue(rings.configurations[1], memory: memory)
        )
        for buffer in buffers {
            let chain = device.receive.takeChain()
            let room = try #require(chain)
            let first = try #require(room.writable.first)
            var header = [UInt8](repeating: 0, count: 100)
            header[10] = buffer.count
            #expect(memory.write(header, at: first.address))
            device.receive.release(head: room.head, written: buffer.written)
        }
        var frames: [TrafficFrame?] = []
        _ = rings.receive { frames.append($0) }
        // Every buffer is back: a whole ring of frames finds room, and arrives.
        let all = UInt64(NetRings.ringSize)
        for sequence in 0..<all { #expect(rings.send(frame(sequence))) }
        _ = rings.flushSent()
        let moved = device.loop(memory) { $0[10] = 1 }
        #expect(moved == Int(all))
        var good = 0
        while case let turn = rings.receive({ good += $0 == nil ? 0 : 1 }), turn.count > 0 {}
        #expect(good == Int(all))
        #expect(rings.error == nil)
        return (frames, rings)
    }

    @Test(arguments: [0, 1, 11, 12] as [UInt32])
    func `HI-A44: a used length below the header is dropped, its buffer posted again`(
        written: UInt32
    ) throws {
        let (frames, rings) = try received(.version1, [(written, 1)])
        #expect(frames == [nil])
        #expect(rings.shortHeaders == 1 && rings.bufferCounts == 0)
    }

    @Test func `HI-A45: a merged frame of 0 buffers is dropped`() throws {
        let (frames, rings) = try received([.version1, .netMergeableBuffers], [(80, 0)])
        #expect(frames == [nil])
        #expect(rings.bufferCounts == 1)
    }

    @Test func `HI-A45: a merged frame is dropped whole, a later one is not part of it`() throws {
        let (frames, rings) = try received(
            [.version1, .netMergeableBuffers],
            [(80, 3), (80, 9), (80, 9), (80, 2), (80, 7)]
        )
        #expect(frames == [nil, nil])
        #expect(rings.bufferCounts == 2)
    }

    @Test func `HI-A45: a frame of more buffers than were returned loses those and no more`() throws
    {
        let (frames, rings) = try received(
            [.version1, .netMergeableBuffers],
            [(80, 255), (80, 1), (80, 1)]
        )
        #expect(frames == [nil])
        #expect(rings.bufferCounts == 1)
    }

    @Test func `a merged, short or changed frame is no frame`() throws {
        let rings = try NetRings(features: .version1)
        let memory = try table(rings)
        var device = Device(
            receive: try SplitDeviceQueue(rings.configurations[0], memory: memory),
            transmit: try SplitDeviceQueue(rings.configurations[1], memory: memory)
        )
        let changes: [(inout [UInt8]) -> Void] = [
            { $0[10] = 2 },
            { $0 = Array($0.prefix(12)) },
            { $0[40] ^= 1 },
        ]
        for change in changes {
            #expect(rings.send(frame(1)))
            _ = rings.flushSent()
            let moved = device.loop(memory, change: change)
            #expect(moved == 1)
            var frames: [TrafficFrame?] = []
            _ = rings.receive { frames.append($0) }
            #expect(frames.count == 1 && frames[0] == nil)
        }
        #expect(rings.shortHeaders == 1 && rings.bufferCounts == 1)
    }

    /// What one frame becomes when a switch changes it, at station 1.
    private func arrival(_ change: (inout [UInt8]) -> Void) throws -> ([TrafficFrame?], NetRings) {
        let rings = try NetRings(features: .version1)
        rings.station = MACAddress(local: 1)
        let memory = try table(rings)
        var device = Device(
            receive: try SplitDeviceQueue(rings.configurations[0], memory: memory),
            transmit: try SplitDeviceQueue(rings.configurations[1], memory: memory)
        )
        #expect(rings.send(frame(1)))
        _ = rings.flushSent()
        let moved = device.loop(memory, change: change)
        #expect(moved == 1)
        var frames: [TrafficFrame?] = []
        let turn = rings.receive { frames.append($0) }
        #expect(turn.count == 1)
        return (frames, rings)
    }

    @Test func `a multicast of another protocol is passed over`() throws {
        let (frames, rings) = try arrival { bytes in
            bytes.replaceSubrange(12..<18, with: [0x33, 0x33, 0, 0, 0, 2])
            bytes.replaceSubrange(24..<26, with: [0x86, 0xdd])
        }
        #expect(frames.isEmpty)
        #expect(rings.foreign == 1)
    }

    @Test func `another protocol at our own address is damage`() throws {
        let (frames, rings) = try arrival { $0.replaceSubrange(24..<26, with: [0x86, 0xdd]) }
        #expect(frames.count == 1 && frames[0] == nil)
        #expect(rings.foreign == 0)
    }

    @Test func `a frame of ours with a changed byte is damage wherever it goes`() throws {
        let (frames, rings) = try arrival { bytes in
            bytes[12] = 0xff
            bytes[50] ^= 1
        }
        #expect(frames.count == 1 && frames[0] == nil)
        #expect(rings.foreign == 0)
    }
}
