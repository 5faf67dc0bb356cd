import HostSystem
import PCI
import Testing
import VirtioSpec
import Virtqueue

@testable import Virtio

/// The peer-notify structure and the window of a device that has them.
@Suite struct PeerNotifyTests {
    private let rig: DriverRig
    private let device: WindowedEchoDevice

    init() throws {
        device = try WindowedEchoDevice()
        rig = try DriverRig(device)
    }

    /// Call eventfds of a peer, one per slot.
    private func connect() throws -> [EventFD] {
        try (0..<4).map { slot in
            let call = try EventFD()
            try device.peerDoorbells.connect(slot, to: call.descriptor)
            return call
        }
    }

    private func capabilities() throws -> [VirtioCapability] {
        try CapabilityList(rig.bus).entries.compactMap { entry in
            let bytes = try (0..<24).map {
                UInt8(try rig.bus.readConfiguration(entry.offset + $0, .byte))
            }
            return VirtioCapability(bytes: bytes)
        }
    }

    @Test func `VPN-D-01: there is exactly one peer-notify capability beside the notify one`()
        throws
    {
        let types = try capabilities().map(\.type)
        #expect(types.filter { $0 == .peerNotify }.count == 1)
        #expect(types.filter { $0 == .notify }.count == 1)
        let plain = try DriverRig()
        #expect(plain.transport.peerNotify == nil)
    }

    @Test func `VPN-D-04: the structure is even and long enough for every slot`() throws {
        let peer = try #require(rig.transport.peerNotify)
        #expect(peer.bar == 0 && peer.offset % 2 == 0)
        #expect(peer.multiplier >= 2 && peer.multiplier & (peer.multiplier - 1) == 0)
        let last = UInt64(device.peerDoorbells.count - 1) * UInt64(peer.multiplier)
        #expect(peer.length >= last + 2)
        #expect(peer.offset + peer.length <= (try rig.bus.barSize(0)))
    }

    @Test func `the window is shared memory 0 in BAR 2`() throws {
        let window = try #require(rig.transport.sharedMemory[0])
        #expect(window.bar == 2 && window.offset == 0)
        #expect(window.length == UInt64(device.peerWindow.length))
    }

    @Test func `VPN-D-02: a store to a slot signals that call descriptor once`() throws {
        let calls = try connect()
        try rig.bus.writeRegister(0, 0x4000 + 2 * 4, .word, 2)
        #expect(calls.map { $0.drain() } == [0, 0, 1, 0])
        try rig.bus.writeRegister(0, 0x4000 + 1 * 4, .long, 1)
        #expect(calls.map { $0.drain() } == [0, 1, 0, 0])
        #expect(rig.device.notifications.isEmpty)
        #expect(try rig.bus.readRegister(0, 0x4000, .long) == 0)
    }

    @Test func `VPN-D-02: a doorbell value does what the store does`() throws {
        let calls = try connect()
        let bell = try rig.transport.peerDoorbell(slot: 3)
        bell.ring()
        #expect(calls.map { $0.drain() } == [0, 0, 0, 1])
    }

    @Test func `VPN-D-03: a slot without a call descriptor takes the store and does nothing`()
        throws
    {
        let calls = try connect()
        let bell = try rig.transport.peerDoorbell(slot: 0)
        try device.peerDoorbells.connect(0, to: nil)
        try rig.bus.writeRegister(0, 0x4000, .word, 0)
        bell.ring()
        #expect(calls.map { $0.drain() } == [0, 0, 0, 0])
        #expect(rig.function.incidents["notify/index"] == 0)
    }

    @Test(
        arguments: [
            (0x4000, .byte), (0x4001, .word), (0x4002, .word), (0x4003, .byte), (0x4002, .long),
            (0x4010, .word), (0x4ffc, .word), (0x5ffc, .long), (0x5ffe, .word),
        ] as [(UInt64, AccessWidth)]
    )
    func `HI-G36: a store beside the slots rings nobody`(
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws {
        let calls = try connect()
        try rig.bus.writeRegister(0, offset, width, 0)
        #expect(calls.allSatisfy { $0.drain() == 0 })
        #expect(rig.function.incidents["notify/index"] == 1)
        if offset % 4 != 0 || offset >= 0x4010 {
            #expect(rig.function.doorbellDescriptor(0, offset) == nil)
        }
    }

    @Test func `HI-G36: there is no doorbell past the slots`() {
        #expect(throws: VirtioError.self) { try rig.transport.peerDoorbell(slot: 4) }
        #expect(throws: VirtioError.self) { try rig.transport.peerDoorbell(slot: 2047) }
        #expect { try rig.transport.peerDoorbell(slot: 2048) } throws: {
            "\($0)".hasPrefix("pci/notify-range")
        }
        #expect(throws: VirtioError.self) { try rig.transport.peerDoorbell(slot: .max) }
    }

    @Test func `HI-H27: register access and mapping show the same bytes`() throws {
        let window = try rig.transport.mapPeerWindow(bar: 2, offset: 0x1000, size: 0x1000)
        try rig.bus.writeRegister(2, 0x1ffc, .long, 0x4433_2211)
        let mapped = unsafe window.address.loadUnaligned(fromByteOffset: 0xffc, as: UInt32.self)
        #expect(mapped == 0x4433_2211)
        unsafe window.address.storeBytes(of: 0x99, toByteOffset: 0xffe, as: UInt8.self)
        #expect(try rig.bus.readRegister(2, 0x1ffd, .word) == 0x9922)
    }

    @Test(
        arguments: [(2, 0, 0x10001), (2, 0x10000, 1), (2, 0, 0), (0, 0, 64), (4, 0, 64)]
            as [(Int, UInt64, UInt64)]
    )
    func `HI-H27: what is no part of the window is not mapped`(
        _ bar: Int,
        _ offset: UInt64,
        _ size: UInt64
    ) {
        #expect(throws: VirtioError.self) {
            try rig.transport.mapPeerWindow(bar: bar, offset: offset, size: size)
        }
    }

    @Test func `HI-H26: the window carries any bytes and the function heeds none`() throws {
        let ring = try rig.start()
        let window = try rig.transport.mapPeerWindow(bar: 2, offset: 0, size: 0x10000)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let offset = UInt64.random(in: 0...0xfffc, using: &random)
            let value = UInt32.random(in: 0...(.max), using: &random)
            try rig.bus.writeRegister(2, offset, .long, value)
            let mapped = unsafe window.address.loadUnaligned(
                fromByteOffset: Int(offset),
                as: UInt32.self
            )
            #expect(mapped == value)
        }
        #expect(try rig.transport.status() == [.acknowledge, .driver, .featuresOK, .driverOK])
        #expect(try ring.echo([1, 2]) == [1, 2])
        #expect(rig.function.incidents.counts.isEmpty)
    }
}
