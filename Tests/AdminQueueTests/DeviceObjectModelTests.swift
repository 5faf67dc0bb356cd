import GuestMemory
import Testing
import Virtio
import VirtioSpec

@testable import AdminQueue

@Suite struct DeviceObjectModelTests {
    private let rig = DialectRig()

    private func attributes(_ change: (inout DeviceAttributes) -> Void) -> [UInt8] {
        var attributes = DeviceAttributes()
        change(&attributes)
        return attributes.bytes
    }

    private func create(_ attributes: [UInt8]) -> VirtualDeviceCommand {
        .create(type: EchoDevice.type, attributes: attributes)
    }

    @Test func `AVQ-D-214: ids are unique among living devices and never 0`() {
        let ids = (0..<4).map { _ in rig.create() }
        #expect(Set(ids).count == 4)
        #expect(!ids.contains(0))
    }

    @Test func `HI-F64: an id is never given twice, also after a reset`() {
        var seen: Set<UInt64> = []
        for round in 0..<100 {
            let id = rig.create()
            #expect(seen.insert(id).inserted)
            if round % 10 == 0 { rig.model.reset() } else { rig.succeed(.destroy, for: id) }
            rig.fail(.statusGet, for: id, .noSuchDevice)
        }
    }

    @Test func `HI-F61: destroying an unknown id, or one twice, fails`() {
        let id = rig.create()
        rig.fail(.destroy, for: id + 1, .noSuchDevice)
        rig.succeed(.destroy, for: id)
        rig.fail(.destroy, for: id, .noSuchDevice)
        #expect(rig.factory.discarded == 1)
    }

    @Test func `AVQ-D-307, HI-F63: a creation past the limit has no room`() {
        for _ in 0..<4 { _ = rig.create() }
        rig.fail(create([]), .noRoomForDevice)
        #expect(rig.factory.made == 4)
    }

    @Test func `AVQ-D-307, HI-F63: a factory without room says so`() {
        rig.factory.room = 1
        _ = rig.create()
        rig.fail(create([]), .noRoomForDevice)
    }

    @Test(arguments: [0, 1, 62, 63, .max] as [UInt32])
    func `AVQ-D-307, HI-F63: a type that cannot be made is told`(_ type: UInt32) {
        rig.fail(.create(type: DeviceType(type), attributes: []), .badDeviceType)
    }

    @Test func `AVQ-D-307, HI-F63: an attribute that cannot be met is told with its offset`() {
        let queues = attributes { $0.queueCount = 0 }
        rig.fail(create(queues), .badAttribute, detail: 0)
        let vectors = attributes {
            $0.configuration = [1]
            $0.vectorCount = 5
        }
        rig.fail(create(vectors), .badAttribute, detail: 8)
        for size in [0, 3, 100] as [UInt16] {
            let sizes = attributes {
                $0.queueCount = 2
                $0.maximumQueueSize = size
            }
            rig.fail(create(sizes), .badAttribute, detail: 8)
        }
        let tooLong = attributes { $0.configuration = [UInt8](repeating: 1, count: 9) }
        rig.fail(create(tooLong), .badAttribute, detail: 0)
        rig.fail(create([9, 9, 0, 0]), .badAttribute, detail: 0)
        #expect(rig.factory.made == rig.factory.discarded)
    }

    @Test(
        arguments: [
            FeatureBits(bit: 50), .netMAC, [], [.version1, .adminQueue], [.version1, .inOrder],
        ] as [FeatureBits]
    )
    func `AVQ-D-307: features that cannot be offered are told`(_ features: FeatureBits) {
        rig.fail(create(attributes { $0.features = features }), .badFeatures)
        #expect(rig.factory.living.isEmpty)
    }

    @Test func `what was asked for is what the device shows`() throws {
        var wanted = DeviceAttributes()
        wanted.features = [.version1, .netMAC]
        wanted.queueCount = 3
        wanted.maximumQueueSize = 16
        wanted.vectorCount = 2
        wanted.configuration = [9, 8]
        let id = rig.create(wanted)
        let information = DeviceInformation(WireFields(rig.succeed(.information, for: id)))
        #expect(information.type == EchoDevice.type)
        #expect(information.queueCount == 3)
        #expect(information.maximumQueueSize == 16)
        #expect(information.vectorCount == 2)
        #expect(information.configurationSize == 8)
        let features: UInt64 = WireFields(rig.succeed(.deviceFeaturesGet, for: id))[0]
        #expect(FeatureBits(rawValue: features) == [.version1, .netMAC])
        let read = rig.succeed(.configurationGet(offset: 0, size: 2), for: id)
        #expect(Array(read.dropFirst(4)) == [9, 8])
    }

    @Test func `AVQ-D-206: there is no device that was not created`() {
        let list = DeviceList(rig.succeed(.list(after: 0, maximum: 10)))
        #expect(list == DeviceList(ids: [], hasMore: false))
        rig.fail(.information, for: 1, .noSuchDevice)
    }

    @Test func `a list goes on behind the last id, in pages that fit`() {
        let ids = (0..<4).map { _ in rig.create() }
        rig.succeed(.destroy, for: ids[1])
        let living = [ids[0], ids[2], ids[3]]
        let bytes = VirtualDeviceCommand.list(after: 0, maximum: 10).bytes(for: 0)
        let cut = DeviceList(Array(rig.raw(bytes, room: 1 + 8 + 16 + 7).dropFirst()))
        #expect(cut == DeviceList(ids: Array(living.prefix(2)), hasMore: true))
        let rest = DeviceList(rig.succeed(.list(after: living[1], maximum: 10)))
        #expect(rest == DeviceList(ids: [living[2]], hasMore: false))
        let none = DeviceList(rig.succeed(.list(after: 0, maximum: 0)))
        #expect(none == DeviceList(ids: [], hasMore: true))
        #expect(DeviceList(rig.succeed(.list(after: .max, maximum: 9))).ids.isEmpty)
    }

    @Test func `AVQ-D-308: a pre-made device is listed, marked, and cannot be destroyed`() throws {
        let id = try rig.model.create(type: EchoDevice.type, attributes: [], isStatic: true)
        #expect(DeviceList(rig.succeed(.list(after: 0, maximum: 9))).ids == [id])
        let information = DeviceInformation(WireFields(rig.succeed(.information, for: id)))
        #expect(information.flags.contains(.isStatic))
        rig.fail(.destroy, for: id, .staticDevice)
        let other = rig.create()
        let plain = DeviceInformation(WireFields(rig.succeed(.information, for: other)))
        #expect(!plain.flags.contains(.isStatic))
    }

    @Test func `AVQ-D-308, AVQ-D-309: a reset destroys the created and restarts the pre-made`()
        throws
    {
        let fixed = try rig.model.create(type: EchoDevice.type, attributes: [], isStatic: true)
        let created = rig.create()
        for id in [fixed, created] {
            rig.negotiate(id)
            rig.succeed(
                .map(MappingRecord(first: 0x1000, last: 0x1fff, target: 0, flags: .read)),
                for: id
            )
            rig.run(id)
        }
        let device = try #require(rig.factory.echo(created))
        rig.model.reset()
        #expect(rig.model.ids == [fixed])
        #expect(device.deactivations == 1)
        #expect(rig.status(fixed) == [])
        #expect(rig.factory.echo(fixed)?.deactivations == 1)
        rig.fail(.mappingQuery(address: 0x1000), for: fixed, .noMapping)
    }

    @Test func `AVQ-D-310, HI-F62: destroying a device in use stops it first`() throws {
        let id = rig.create()
        let device = try #require(rig.factory.echo(id))
        rig.negotiate(id)
        rig.succeed(.bindConfiguration(vector: 0), for: id)
        rig.run(id)
        let context = try #require(device.context)
        context.interruptConfiguration()
        #expect(rig.events.contains { $0.type == .configurationChange })
        rig.succeed(.destroy, for: id)
        #expect(device.deactivations == 1)
        #expect(rig.events.map(\.type) == [.deviceRemoved])
        // Whatever a device that is gone still tries has no effect.
        context.interruptConfiguration()
        context.fail(DeviceFault("ring/loop"))
        #expect(context.memory.all.isEmpty)
        #expect(rig.events.count == 1)
    }

    @Test func `creation and destruction are announced`() {
        let id = rig.create()
        #expect(rig.events.last?.type == .deviceAdded)
        #expect(rig.events.last?.data == UInt64(EchoDevice.type.rawValue))
        rig.succeed(.destroy, for: id)
        #expect(rig.events.last?.type == .deviceRemoved)
        #expect(rig.events.last?.virtualDeviceID == id)
    }
}
