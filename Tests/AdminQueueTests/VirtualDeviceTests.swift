import GuestMemory
import HostSystem
import Testing
import Virtio
import VirtioSpec

@testable import AdminQueue

@Suite struct VirtualDeviceTests {
    private let rig = DialectRig()

    private func features(_ command: VirtualDeviceCommand, _ id: UInt64) -> FeatureBits {
        FeatureBits(rawValue: WireFields(rig.succeed(command, for: id))[0])
    }

    // Features.

    @Test func `AVQ-D-201: a device that offers an admin queue loses it as a virtual device`()
        throws
    {
        let id = rig.create()
        #expect(try #require(rig.factory.echo(id)).offeredFeatures.contains(.adminQueue))
        #expect(!features(.deviceFeaturesGet, id).contains(.adminQueue))
        rig.fail(.driverFeaturesSet([.version1, .adminQueue]), for: id, .badFeatures)
    }

    @Test func `AVQ-D-215: offered, chosen and agreed features`() throws {
        let id = rig.create()
        #expect(features(.deviceFeaturesGet, id) == [.version1, .eventIndex, .netMAC])
        #expect(features(.driverFeaturesGet, id) == [])
        rig.succeed(.driverFeaturesSet([.version1, .netMAC]), for: id)
        #expect(features(.driverFeaturesGet, id) == [.version1, .netMAC])
        try #require(rig.factory.echo(id)).offeredFeatures = .version1
        #expect(features(.driverFeaturesGet, id) == .version1)
    }

    @Test func `AVQ-D-311, HI-F66: a bit that is not offered is refused`() {
        let id = rig.create()
        for bit in UInt8(0)..<64 where ![32, 29, 5].contains(bit) {
            rig.fail(
                .driverFeaturesSet(FeatureBits.version1.union(FeatureBits(bit: bit))),
                for: id,
                .badFeatures
            )
        }
    }

    @Test func `AVQ-D-311, HI-F66: features are fixed from FEATURES_OK to reset`() {
        let id = rig.create()
        rig.negotiate(id)
        rig.fail(.driverFeaturesSet(.version1), for: id, .badState)
        rig.succeed(.statusSet([]), for: id)
        rig.succeed(.driverFeaturesSet(.version1), for: id)
    }

    // Status.

    @Test func `AVQ-D-208, AVQ-D-209, HI-F67: status 0 resets before the command succeeds`() throws
    {
        let id = rig.create()
        let device = try #require(rig.factory.echo(id))
        rig.negotiate(id)
        rig.run(id)
        #expect(device.activations == 1)
        rig.succeed(.statusSet([]), for: id)
        #expect(device.deactivations == 1)
        #expect(rig.status(id) == [])
        #expect(features(.driverFeaturesGet, id) == [])
        rig.succeed(.statusSet([]), for: id)
        #expect(device.deactivations == 1)
    }

    @Test func `AVQ-D-312, HI-F67: clearing a bit is refused`() {
        let id = rig.create()
        rig.negotiate(id)
        rig.run(id)
        let full: DeviceStatus = [.acknowledge, .driver, .featuresOK, .driverOK]
        for bit in [DeviceStatus.acknowledge, .driver, .featuresOK, .driverOK] {
            rig.fail(.statusSet(full.subtracting(bit)), for: id, .badState)
        }
        #expect(rig.status(id) == full)
    }

    @Test func `AVQ-D-312: bits of the device in a written value are ignored`() {
        let id = rig.create()
        rig.succeed(.statusSet([.acknowledge, .mmuFail, .needsReset]), for: id)
        #expect(rig.status(id) == .acknowledge)
    }

    @Test func `AVQ-D-312: FEATURES_OK does not stick for a set that cannot be served`() throws {
        let id = rig.create()
        try #require(rig.factory.echo(id)).refusedFeatures = .netMAC
        rig.succeed(.driverFeaturesSet([.version1, .netMAC]), for: id)
        rig.succeed(.statusSet([.acknowledge, .driver, .featuresOK]), for: id)
        #expect(rig.status(id) == [.acknowledge, .driver])
        rig.succeed(.driverFeaturesSet(.netMAC), for: id)
        rig.succeed(.statusSet([.acknowledge, .driver, .featuresOK]), for: id)
        #expect(rig.status(id) == [.acknowledge, .driver])
    }

    @Test func `AVQ-D-305: DRIVER_OK without FEATURES_OK is refused and sets nothing at all`()
        throws
    {
        let id = rig.create()
        rig.fail(.statusSet([.acknowledge, .driver, .driverOK]), for: id, .badState)
        #expect(rig.status(id) == [])
        #expect(try #require(rig.factory.echo(id)).activations == 0)
    }

    // Configuration.

    @Test func `AVQ-D-313, HI-F68: configuration past the end is BAD_OFFSET`() {
        let id = rig.create()
        let ranges: [(UInt32, UInt32)] = [
            (0, 9), (8, 1), (9, 0), (.max, 1), (1, .max), (.max, .max),
        ]
        for (offset, size) in ranges {
            rig.fail(.configurationGet(offset: offset, size: size), for: id, .badOffset)
        }
        for offset in [6, 8, .max] as [UInt32] {
            rig.fail(.configurationSet(offset: offset, bytes: [1, 2, 3]), for: id, .badOffset)
        }
        #expect(rig.succeed(.configurationGet(offset: 8, size: 0), for: id).count == 4)
    }

    @Test func `AVQ-D-313: bytes come with their generation, which both classes tell`() throws {
        let id = rig.create()
        let device = try #require(rig.factory.echo(id))
        func read() -> (UInt32, [UInt8]) {
            let result = rig.succeed(.configurationGet(offset: 2, size: 3), for: id)
            return (WireFields(result)[0], Array(result.dropFirst(4)))
        }
        func generation() -> UInt32 { WireFields(rig.succeed(.generationGet, for: id))[0] }
        let (first, bytes) = read()
        #expect(bytes == [3, 4, 5])
        #expect(generation() == first)
        device.configuration[7] = 99
        let (second, _) = read()
        #expect(second != first)
        #expect(generation() == second)
        device.configuration[7] = 98
        #expect(generation() != second)
    }

    @Test func `AVQ-D-314: only fields that may be written are written`() throws {
        let id = rig.create()
        rig.succeed(.configurationSet(offset: 1, bytes: [7, 7]), for: id)
        #expect(try #require(rig.factory.echo(id)).configuration.prefix(4) == [1, 7, 7, 4])
        rig.fail(.configurationSet(offset: 4, bytes: [7]), for: id, .invalidField)
        rig.fail(.configurationSet(offset: 3, bytes: [7, 7]), for: id, .invalidField)
    }

    // Interrupts.

    @Test func `AVQ-D-315: a vector that is not there binds to nothing and the command succeeds`() {
        let id = rig.create()
        let information = InterruptInformation(
            WireFields(rig.succeed(.interruptInformation, for: id))
        )
        #expect(information.vectorCount == 3)
        #expect(information.flags == [.maskable, .byEventQueue])
        #expect(rig.succeed(.bindQueue(queue: 0, vector: 2), for: id) == [2, 0])
        #expect(rig.succeed(.bindQueue(queue: 0, vector: 3), for: id) == [0xff, 0xff])
        #expect(rig.succeed(.bindConfiguration(vector: 0xffff), for: id) == [0xff, 0xff])
        rig.fail(.bindQueue(queue: 2, vector: 0), for: id, .badQueue)
        rig.fail(.vectorGet(vector: 3), for: id, .badVector)
        rig.fail(.vectorSet(VectorRecord(vector: 3, flags: [])), for: id, .badVector)
    }

    @Test func `AVQ-D-316: a masked interrupt is sent when its vector is unmasked`() throws {
        let id = rig.create()
        rig.negotiate(id)
        rig.succeed(.bindQueue(queue: 1, vector: 1), for: id)
        rig.succeed(.vectorSet(VectorRecord(vector: 1, flags: .masked)), for: id)
        rig.run(id)
        let context = try #require(rig.factory.echo(id)?.context)
        context.interruptQueue(1)
        #expect(!rig.events.contains { $0.type == .usedBuffer })
        let record = VectorRecord(WireFields(rig.succeed(.vectorGet(vector: 1), for: id)))
        #expect(record.flags == [.masked, .pending])
        rig.succeed(.vectorSet(VectorRecord(vector: 1, flags: [])), for: id)
        let event = try #require(rig.events.last)
        #expect(event.type == .usedBuffer)
        #expect(event.index == 1)
        #expect(event.data == 1)
        #expect(event.virtualDeviceID == id)
    }

    @Test func `interrupts for queues that no driver could have are dropped`() throws {
        let id = rig.create()
        rig.negotiate(id)
        rig.run(id)
        let context = try #require(rig.factory.echo(id)?.context)
        let before = rig.events
        for queue in [-1, 5, 65536, .max] { context.interruptQueue(queue) }
        #expect(rig.events == before)
    }

    // Queues.

    @Test func `AVQ-D-317: a queue is enabled only between FEATURES_OK and DRIVER_OK`() {
        let id = rig.create()
        let addresses = QueueAddresses(descriptorArea: 16, driverArea: 2, deviceArea: 4)
        rig.succeed(.queueAddressesSet(queue: 0, addresses), for: id)
        rig.fail(.queueEnable(queue: 0, value: 1), for: id, .badState)
        rig.negotiate(id)
        rig.succeed(.queueEnable(queue: 0, value: 1), for: id)
        rig.succeed(.queueAddressesSet(queue: 1, addresses), for: id)
        rig.run(id)
        rig.fail(.queueEnable(queue: 1, value: 1), for: id, .badState)
    }

    @Test func `AVQ-D-319: kicks before DRIVER_OK are remembered, and acted on once it is set`()
        throws
    {
        let id = rig.create()
        let device = try #require(rig.factory.echo(id))
        rig.negotiate(id)
        rig.enable(1, of: id)
        rig.succeed(.queueKick(queue: 1, notification: 0), for: id)
        rig.succeed(.queueKick(queue: 0, notification: 0), for: id)
        #expect(device.notified.isEmpty)
        rig.run(id)
        #expect(device.notified == [1])
        rig.succeed(.queueKick(queue: 1, notification: 7), for: id)
        rig.succeed(.queueKick(queue: 0, notification: 7), for: id)
        #expect(device.notified == [1, 1])
    }

    @Test func `AVQ-D-318: resetting a queue that the device cannot stop is refused`() throws {
        let id = rig.create()
        rig.negotiate(id)
        rig.enable(1, of: id)
        rig.run(id)
        rig.fail(.queueReset(queue: 1), for: id, .badState)
        rig.succeed(.queueReset(queue: 0), for: id)
    }

    @Test func `AVQ-D-318: a queue that was reset has defaults and can be enabled again`() throws {
        let answer = rig.succeed(.create(type: DeviceType(61), attributes: []))
        let id: UInt64 = WireFields(answer)[0]
        let device = try #require(rig.factory.living[id] as? ResettableDevice)
        rig.negotiate(id)
        rig.succeed(.queueSizeSet(queue: 1, size: 8), for: id)
        rig.succeed(.bindQueue(queue: 1, vector: 1), for: id)
        rig.enable(1, of: id)
        rig.run(id)
        rig.succeed(.queueReset(queue: 1), for: id)
        #expect(device.resets == [1])
        let queue = QueueInformation(
            WireFields(rig.succeed(.queueInformation(queue: 1), for: id))
        )
        #expect(queue.size == 16)
        #expect(queue.vector == noVector)
        #expect(!queue.isEnabled)
        #expect(queue.addresses.descriptorArea == 0)
        rig.succeed(.queueKick(queue: 1, notification: 0), for: id)
        #expect(device.notified.isEmpty)
        rig.enable(1, of: id)
        #expect(device.enables == [1])
        rig.succeed(.queueKick(queue: 1, notification: 0), for: id)
        #expect(device.notified == [1])
    }
}
