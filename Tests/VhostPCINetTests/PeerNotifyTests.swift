import HostSystem
import Testing
import Virtio

@testable import VhostPCINet

@Suite struct PeerNotifyTests {
    private let doorbells: DoorbellTable
    private let notify: PeerNotify
    private let calls: [EventFD]

    init() throws {
        doorbells = try DoorbellTable(count: 8)
        notify = PeerNotify(doorbells: doorbells, first: 2, count: 4)
        calls = try (0..<4).map { _ in try EventFD() }
    }

    private var descriptors: [Int: FileDescriptor] {
        Dictionary(uniqueKeysWithValues: calls.enumerated().map { ($0, $1.descriptor) })
    }

    private func counts() -> [UInt64] { calls.map { $0.drain() } }

    @Test func `VPN-D-02: ringing a slot signals its ring once and no other`() throws {
        try notify.connect(descriptors)
        doorbells.ring(notify.slot(ofRing: 1))
        #expect(counts() == [0, 1, 0, 0])
        #expect(notify.slot(ofRing: 1) == 3)
    }

    @Test func `VPN-D-03: slots without a call descriptor ring nobody`() throws {
        try notify.connect([1: calls[1].descriptor])
        for slot in 0..<8 { doorbells.ring(slot) }
        #expect(counts() == [0, 1, 0, 0])
    }

    @Test func `VPN-D-03: while not connected every slot rings nobody`() throws {
        for slot in 0..<8 { doorbells.ring(slot) }
        try notify.connect(descriptors)
        notify.disconnect()
        for slot in 0..<8 { doorbells.ring(slot) }
        #expect(counts() == [0, 0, 0, 0])
    }

    @Test func `HI-G36: slots beyond the peer's rings and beyond the structure ring nobody`() throws
    {
        try notify.connect(descriptors)
        for slot in [-1, 0, 1, 6, 7, 8, 70_000, Int.max] { doorbells.ring(slot) }
        #expect(counts() == [0, 0, 0, 0])
    }

    @Test func `VU-B-14: another call descriptor takes over at once`() throws {
        try notify.connect(descriptors)
        let other = try EventFD()
        try notify.replace(1, with: other.descriptor)
        doorbells.ring(notify.slot(ofRing: 1))
        #expect(other.drain() == 1)
        #expect(counts() == [0, 0, 0, 0])
    }

    @Test func `VPN-D-03: a call descriptor given while not connected rings nobody`() throws {
        try notify.replace(1, with: calls[1].descriptor)
        doorbells.ring(notify.slot(ofRing: 1))
        try notify.replace(4, with: calls[0].descriptor)
        try notify.replace(-1, with: calls[0].descriptor)
        #expect(counts() == [0, 0, 0, 0])
    }

    @Test func `a call descriptor taken away rings nobody`() throws {
        try notify.connect(descriptors)
        try notify.replace(1, with: nil)
        doorbells.ring(notify.slot(ofRing: 1))
        #expect(counts() == [0, 0, 0, 0])
    }

    @Test func `what was rung into the void is made good by one signal for each ring`() throws {
        try notify.connect(descriptors)
        notify.disconnect()
        for slot in 0..<8 { doorbells.ring(slot) }
        try notify.signalAll()
        #expect(counts() == [1, 1, 1, 1])
        notify.forget()
        try notify.signalAll()
        #expect(counts() == [0, 0, 0, 0])
    }
}
