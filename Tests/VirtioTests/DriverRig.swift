import GuestMemory
import HostSystem
import PCI
import Testing
import VirtioSpec
import Virtqueue

@testable import Virtio

/// A device behind an in-process function, and what a driver needs to drive it.
struct DriverRig {
    let device: EchoDevice
    let function: VirtioPCIFunction
    let bus: InProcessFunction
    let transport: PCITransport

    init(_ device: EchoDevice = EchoDevice()) throws {
        self.device = device
        function = try VirtioPCIFunction(device: device)
        bus = InProcessFunction(endpoint: function)
        transport = try PCITransport(function: bus)
    }

    /// Brings the device up with one ring.
    func start(wanted: FeatureBits = [.accessPlatform]) throws -> EchoRing {
        let ring = try EchoRing(transport, queue: 0)
        _ = try DriverHandshake.run(transport, wanted: wanted) {
            (features) throws(VirtioError) in
            try ring.enable(features)
        }
        return ring
    }
}

/// A driver's ring of 8 entries that sends one chain of a readable and a writable buffer at a time.
final class EchoRing {
    let transport: any VirtioTransport
    let queue: Int
    let arena: DMAArena
    let memory: DMABuffer
    let interrupt: EventFD
    private var index: UInt16 = 0

    init(_ transport: any VirtioTransport, queue: Int) throws {
        self.transport = transport
        self.queue = queue
        arena = try transport.makeArena(size: 8192)
        memory = try #require(arena.allocate(8192, alignment: 4096))
        interrupt = try transport.interrupt(UInt16(queue + 1))
    }

    var configuration: QueueConfiguration {
        QueueConfiguration(
            size: 8,
            descriptorArea: memory.deviceAddress,
            driverArea: memory.deviceAddress + 1024,
            deviceArea: memory.deviceAddress + 2048
        )
    }

    func enable(_ features: FeatureBits = []) throws(VirtioError) {
        try transport.enableQueue(queue, configuration, vector: UInt16(queue + 1))
    }

    /// Makes one chain available without a notification.
    func post(_ bytes: [UInt8]) {
        memory.write(bytes, at: 4096)
        var descriptors = WireWriter()
        descriptors.integer(memory.deviceAddress + 4096)
        descriptors.integer(UInt32(bytes.count))
        descriptors.integer(UInt16(1))
        descriptors.integer(UInt16(1))
        descriptors.integer(memory.deviceAddress + 6144)
        descriptors.integer(UInt32(2048))
        descriptors.integer(UInt16(2))
        descriptors.integer(UInt16(0))
        memory.write(descriptors.bytes)
        index &+= 1
        memory.write([0, 0, UInt8(truncatingIfNeeded: index), UInt8(index >> 8)], at: 1024)
    }

    /// Sends bytes and returns what came back; empty when nothing did.
    func echo(_ bytes: [UInt8]) throws -> [UInt8] {
        post(bytes)
        try transport.notifyQueue(queue)
        return received(bytes.count)
    }

    func received(_ count: Int) -> [UInt8] {
        let used = memory.read(at: 2048 + 2, count: 2)
        guard UInt16(used[0]) | UInt16(used[1]) << 8 == index else { return [] }
        return memory.read(at: 6144, count: count)
    }
}

// Single registers of the common configuration, as any driver may access them.
extension DriverRig {
    func read(_ register: CommonConfiguration) throws -> UInt32 {
        try bus.readRegister(0, UInt64(register.offset), width(register))
    }

    func write(_ register: CommonConfiguration, _ value: UInt32) throws {
        try bus.writeRegister(0, UInt64(register.offset), width(register), value)
    }

    func status() throws -> UInt32 { try read(.deviceStatus) }

    /// As far as FEATURES_OK, with the features that the device offers.
    func negotiate(_ features: FeatureBits = .version1) throws {
        for status: UInt32 in [0, 1, 3] { try write(.deviceStatus, status) }
        try transport.setDriverFeatures(features)
        try write(.deviceStatus, 0xb)
    }

    private func width(_ register: CommonConfiguration) -> AccessWidth {
        AccessWidth(rawValue: register.width) ?? .byte
    }
}
