import Glibc
import HostSystem
import RingSupport
import Testing
import VirtioSpec
import Virtqueue

@testable import PollEngine

@Suite struct PeerPortTests {
    private static let header = [UInt8](repeating: 0, count: 12)

    private func port(
        _ transmit: SplitRingRig,
        _ receive: SplitRingRig,
        mergeable: Bool = false,
        call: EventFD? = nil
    ) throws -> PeerPort {
        let bell = call.map { Doorbell(eventDescriptor: $0.descriptor.rawValue) } ?? .none
        return PeerPort(
            receive: try SplitDeviceQueue(transmit.configuration, memory: transmit.table),
            transmit: try SplitDeviceQueue(receive.configuration, memory: receive.table),
            mergeable: mergeable,
            receiveDoorbell: bell,
            transmitDoorbell: bell
        )
    }

    /// What a port makes of one packet of a peer: the frame and the counters.
    private func received(_ packet: [UInt8]) throws -> (frame: [UInt8]?, counters: PortCounters) {
        let rig = try SplitRingRig()
        rig.write(packet, at: SplitRingRig.buffers)
        rig.offer(0, SplitRingRig.buffers, UInt32(packet.count))
        var port = try port(rig, SplitRingRig())
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        let isDropped = unsafe burst.entries[0].isDropped != 0
        let frame = isDropped ? nil : bytes(of: burst, 0)
        port.finishReceive(burst)
        #expect(rig.usedIndex == 1)
        #expect(port.error == nil)
        return (frame, port.counters)
    }

    @Test func `HI-A11: segments of length 0 are counted at the port`() throws {
        let frame = (0..<60).map { UInt8($0) }
        let rig = try SplitRingRig()
        rig.write(Self.header + frame, at: SplitRingRig.buffers)
        rig.offerChain(
            0,
            [
                SplitDescriptor(address: SplitRingRig.buffers, length: 0),
                SplitDescriptor(address: SplitRingRig.buffers, length: 72),
                SplitDescriptor(address: SplitRingRig.buffers, length: 0),
            ]
        )
        var port = try port(rig, SplitRingRig())
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        #expect(bytes(of: burst, 0) == frame)
        #expect(port.counters.emptySegments == 2)
    }

    @Test func `a packet crosses from one ring to the other without its header`() throws {
        let frame = (0..<64).map { UInt8($0) }
        let transmit = try SplitRingRig()
        let receive = try SplitRingRig()
        transmit.write(Self.header + frame, at: SplitRingRig.buffers)
        transmit.offer(3, SplitRingRig.buffers, 76)
        receive.offer(5, SplitRingRig.buffers, 2048, flags: SplitDescriptor.writeFlag)
        var port = try port(transmit, receive)
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        #expect(bytes(of: burst, 0) == frame)
        #expect(port.transmit(burst, from: 0, count: 1) == 1)
        #expect(receive.usedIndex == 0)
        port.finishTransmit()
        port.finishReceive(burst)
        #expect(receive.usedElement(0) == (id: 5, length: 76))
        #expect(
            receive.read(SplitRingRig.buffers, 76) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0] + frame
        )
        #expect(transmit.usedElement(0) == (id: 3, length: 0))
        #expect(port.counters.receivedPackets == 1)
        #expect(port.counters.receivedBytes == 64)
        #expect(port.counters.transmittedPackets == 1)
        #expect(port.counters.transmittedBytes == 64)
        #expect(port.counters.copies == 1)
    }

    @Test(arguments: [1, 2, 3, 13, 64, 100, 1526])
    func `a packet is merged over as many buffers as it needs`(size: Int) throws {
        let frame = (0..<1514).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let transmit = try SplitRingRig()
        let receive = try SplitRingRig(size: 2048)
        transmit.write(Self.header + frame, at: SplitRingRig.buffers)
        transmit.offer(0, SplitRingRig.buffers, UInt32(12 + frame.count))
        let needed = (1526 + size - 1) / size
        for head in 0..<needed {
            receive.offer(
                UInt16(head),
                SplitRingRig.buffers + UInt64(head * size),
                UInt32(size),
                flags: SplitDescriptor.writeFlag
            )
        }
        var port = try port(transmit, receive, mergeable: true)
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 1) == 1)
        #expect(port.transmit(burst, from: 0, count: 1) == 1)
        port.finishTransmit()
        #expect(receive.usedIndex == UInt16(needed))
        let merged = receive.read(SplitRingRig.buffers, 1526)
        #expect(Array(merged.dropFirst(12)) == frame)
        #expect(Int(merged[10]) | Int(merged[11]) << 8 == needed)
        let lengths = (0..<needed).map { Int(receive.usedElement(UInt16($0)).length) }
        #expect(lengths.reduce(0, +) == 1526)
        #expect(lengths.dropLast().allSatisfy { $0 == size })
        #expect(port.counters.copies == 1)
    }

    @Test func `a merged packet without enough buffers takes none of them`() throws {
        let transmit = try SplitRingRig()
        let receive = try SplitRingRig()
        transmit.write(Self.header + [UInt8](repeating: 1, count: 200), at: SplitRingRig.buffers)
        transmit.offer(0, SplitRingRig.buffers, 212)
        let write = SplitDescriptor.writeFlag
        receive.offer(0, SplitRingRig.buffers, 100, flags: write)
        var port = try port(transmit, receive, mergeable: true)
        var burst = ChainBurst()
        _ = port.receive(into: &burst, limit: 1)
        #expect(port.transmit(burst, from: 0, count: 1) == 0)
        port.finishTransmit()
        #expect(receive.usedIndex == 0)
        #expect(port.counters.copies == 0)
        receive.offer(1, SplitRingRig.buffers + 100, 112, flags: write)
        #expect(port.transmit(burst, from: 0, count: 1) == 1)
        port.finishTransmit()
        #expect(receive.usedIndex == 2)
        #expect(receive.usedElement(1) == (id: 1, length: 112))
        #expect(port.counters.copies == 1)
    }

    @Test func `a packet that no buffer can hold is skipped and the next one delivered`() throws {
        let transmit = try SplitRingRig()
        let receive = try SplitRingRig()
        transmit.write(Self.header + [UInt8](repeating: 1, count: 200), at: SplitRingRig.buffers)
        transmit.offer(0, SplitRingRig.buffers, 212)
        transmit.offer(1, SplitRingRig.buffers, 72)
        receive.offer(0, SplitRingRig.buffers, 100, flags: SplitDescriptor.writeFlag)
        var port = try port(transmit, receive)
        var burst = ChainBurst()
        _ = port.receive(into: &burst, limit: 2)
        #expect(port.transmit(burst, from: 0, count: 2) == 2)
        port.finishTransmit()
        #expect(receive.usedIndex == 1)
        #expect(receive.usedElement(0) == (id: 0, length: 72))
        #expect(port.counters.drops == ["peer/buffer-size": 1])
        #expect(port.counters.copies == 1)
    }

    @Test func `HI-A15: a chain shorter than the header is dropped`() throws {
        for count in 1..<12 {
            let (frame, counters) = try received([UInt8](repeating: 0, count: count))
            #expect(frame == nil)
            #expect(counters.drops == ["net/short-header": 1])
            #expect(counters.receivedPackets == 0)
        }
    }

    @Test func `HI-A16: a chain of the header alone is dropped`() throws {
        let (frame, counters) = try received(Self.header)
        #expect(frame == nil)
        #expect(counters.drops == ["net/empty": 1])
    }

    @Test(arguments: [1, 2, 5, 11])
    func `HI-A17: a header cut into small descriptors arrives whole`(step: Int) throws {
        let packet = Self.header + (0..<40).map { UInt8($0) }
        let rig = try SplitRingRig(size: 64)
        var chain: [SplitDescriptor] = []
        for (number, start) in stride(from: 0, to: packet.count, by: step).enumerated() {
            let part = Array(packet[start..<min(start + step, packet.count)])
            let address = SplitRingRig.buffers + UInt64(number * 64)
            rig.write(part, at: address)
            chain.append(SplitDescriptor(address: address, length: UInt32(part.count)))
        }
        rig.offerChain(0, chain)
        var port = try port(rig, SplitRingRig())
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 1)
        #expect(bytes(of: burst, 0) == Array(packet.dropFirst(12)))
        #expect(port.counters.drops.isEmpty)
    }

    @Test(arguments: [(65, 0), (0, 63), (63, 1), (0xFFFF, 0xFFFF), (60, 0xFFFF)])
    func `HI-A31: a checksum outside the packet is dropped`(start: Int, offset: Int) throws {
        let packet: [UInt8] =
            [1, 0, 0, 0, 0, 0]
            + [UInt8(start & 255), UInt8(start >> 8), UInt8(offset & 255), UInt8(offset >> 8)]
            + [0, 0] + [UInt8](repeating: 9, count: 64)
        let (frame, counters) = try received(packet)
        #expect(frame == nil)
        #expect(counters.drops == ["net/csum-range": 1])
    }

    @Test(
        arguments: [
            [0, 1, 0, 0, 0, 0], [0, 1, 54, 0, 0, 4], [0, 4, 54, 0, 0, 4], [0, 0x80, 0, 0, 0, 4],
            [0, 77, 0, 0, 0, 4], [0, 0, 65, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 54, 0, 0, 4],
        ] as [[UInt8]]
    )
    func `HI-A32: an offload that was not negotiated is dropped`(start: [UInt8]) throws {
        let rest = [UInt8](repeating: 0, count: 6) + [UInt8](repeating: 9, count: 64)
        let (frame, counters) = try received(start + rest)
        #expect(frame == nil)
        #expect(counters.drops == ["net/gso": 1])
    }

    @Test func `unknown header flags and unused fields do not matter`() throws {
        let odd: [UInt8] = [0xFE, 0, 64, 0, 255, 255, 255, 255, 255, 255, 255, 255]
        let (frame, counters) = try received(odd + [UInt8](repeating: 9, count: 64))
        #expect(frame == [UInt8](repeating: 9, count: 64))
        #expect(counters.drops.isEmpty)
    }

    @Test func `HI-A33: a frame above the largest size is dropped, the largest is not`() throws {
        let rig = try SplitRingRig()
        rig.offer(0, SplitRingRig.buffers, 12 + SplitDeviceQueue.longestPacket)
        rig.offer(1, SplitRingRig.buffers, 13 + SplitDeviceQueue.longestPacket)
        rig.offer(2, SplitRingRig.buffers, 0x10_0000)
        var port = try port(rig, SplitRingRig())
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 3)
        #expect(unsafe burst.entries[0].isDropped == 0)
        #expect(port.counters.drops == ["net/too-big": 2])
        #expect(port.counters.receivedBytes == UInt64(SplitDeviceQueue.longestPacket))
    }

    @Test func `HI-G37: a hostile ring breaks its own pair and no other`() throws {
        let bad = try SplitRingRig()
        let good = try SplitRingRig()
        bad.offer(0, 0x10, 64)
        good.write(Self.header + [1, 2, 3], at: SplitRingRig.buffers)
        good.offer(0, SplitRingRig.buffers, 15)
        var first = try port(bad, SplitRingRig())
        var second = try port(good, SplitRingRig())
        var burst = ChainBurst()
        #expect(first.receive(into: &burst, limit: 32) == 0)
        #expect(first.error == .unmapped)
        #expect(first.fault?.address == 0x10)
        #expect(second.receive(into: &burst, limit: 32) == 1)
        #expect(second.error == nil)
        #expect(first.transmit(burst, from: 0, count: 1) == 0)
        second.finishReceive(burst)
        #expect(good.usedIndex == 1)
        #expect(bad.usedIndex == 0)
    }

    @Test func `VPN-M-12: the peer is notified once a burst and only if it wants to be`() throws {
        let call = try EventFD()
        let rig = try SplitRingRig()
        var port = try port(rig, SplitRingRig(), call: call)
        var burst = ChainBurst()
        for flags: UInt16 in [0, 1] {
            rig.driverFlags = flags
            for head in UInt16(0)..<3 { rig.offer(head, SplitRingRig.buffers, 64) }
            burst.clear()
            #expect(port.receive(into: &burst, limit: 32) == 3)
            port.finishReceive(burst)
            #expect(call.drain() == UInt64(1 - flags))
        }
        #expect(port.counters.kicksSent == 1)
        #expect(port.counters.kicksSuppressed == 1)
        port.finishTransmit()
        #expect(port.counters.kicksSuppressed == 1)
    }

    @Test func `HI-D25: a full call counter is counted and breaks nothing`() throws {
        let call = try EventFD()
        var most: UInt64 = .max - 1
        try #require(unsafe write(call.descriptor.rawValue, &most, 8) == 8)
        let rig = try SplitRingRig()
        var port = try port(rig, SplitRingRig(), call: call)
        var burst = ChainBurst()
        for _ in 0..<2 {
            rig.offer(0, SplitRingRig.buffers, 64)
            burst.clear()
            #expect(port.receive(into: &burst, limit: 32) == 1)
            port.finishReceive(burst)
        }
        #expect(port.error == nil)
        #expect(port.counters.notifyFull == 2)
        #expect(port.counters.kicksSent == 0)
    }

    @Test(arguments: [true, false])
    func `HI-D25: a peer whose call eventfd blocks costs its own ring only`(
        _ isReceive: Bool
    ) throws {
        let call = try BlockingEvent()
        let from = try SplitRingRig()
        let into = try SplitRingRig()
        var port = try port(from, into, call: call.event)
        var burst = ChainBurst()
        from.offer(0, SplitRingRig.buffers, 64)
        into.offer(0, SplitRingRig.buffers, 2048, flags: 2)
        #expect(port.receive(into: &burst, limit: 32) == 1)
        let start = MonotonicClock.now
        if isReceive {
            port.finishReceive(burst)
        } else {
            #expect(port.transmit(burst, from: 0, count: 1) == 1)
            port.finishTransmit()
        }
        #expect(MonotonicClock.now - start < 1_000_000_000)
        #expect(port.error == .notifyBlocked)
        // It is not rung a second time.
        let again = MonotonicClock.now
        for _ in 0..<1000 {
            port.finishReceive(burst)
            port.finishTransmit()
        }
        #expect(MonotonicClock.now - again < 20_000_000)
    }

    @Test func `a port without a ring moves nothing and breaks nothing`() throws {
        var port = PeerPort(
            receive: nil,
            transmit: nil,
            mergeable: true,
            receiveDoorbell: .none,
            transmitDoorbell: .none
        )
        var burst = ChainBurst()
        #expect(port.receive(into: &burst, limit: 32) == 0)
        #expect(port.counters.emptyPolls == 1)
        let source = try SplitRingRig()
        source.write(Self.header + [1, 2, 3], at: SplitRingRig.buffers)
        source.offer(0, SplitRingRig.buffers, 15)
        var other = try self.port(source, SplitRingRig())
        #expect(other.receive(into: &burst, limit: 32) == 1)
        #expect(port.transmit(burst, from: 0, count: 1) == 0)
        port.finishTransmit()
        port.suppressNotifications()
        #expect(port.requestNotifications() == false)
        #expect(port.error == nil)
    }
}
