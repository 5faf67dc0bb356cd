import GuestMemory
import HostSystem
import Testing
import Virtio
import VirtioSpec

@testable import AdminQueue

@Suite struct VirtualDeviceMemoryTests {
    private let rig = DialectRig()

    private func memory() throws -> MemoryTable {
        let pages = try Mapping.anonymous(length: 0x10000)
        let region = unsafe MemoryRegion(start: 0, size: 0x10000, host: pages.address)
        return try MemoryTable([try #require(region)], owners: [pages])
    }

    private func map(_ id: UInt64, _ first: UInt64, to target: UInt64, _ flags: MMUFlags) {
        rig.succeed(
            .map(
                MappingRecord(first: first, last: first + 0xfff, target: target, flags: flags)
            ),
            for: id
        )
    }

    @Test func `AVQ-D-320: a device reaches what is mapped for it, and nothing of another's`()
        throws
    {
        rig.managementMemory = try memory()
        let (one, other) = (rig.create(), rig.create())
        for id in [one, other] {
            rig.negotiate(id)
            rig.run(id)
        }
        let mine = try #require(rig.factory.echo(one)?.context)
        let theirs = try #require(rig.factory.echo(other)?.context)
        #expect(mine.memory.all.isEmpty)
        map(one, 0x7000, to: 0x2000, [.read, .write])
        #expect(mine.memory.write([5], at: 0x7010))
        #expect(rig.managementMemory.read(0x2010, 1) == [5])
        #expect(theirs.memory.read(0x7010, 1) == nil)
        map(other, 0x7000, to: 0x3000, .read)
        #expect(theirs.memory.read(0x7010, 1) == [0])
        #expect(!theirs.memory.write([5], at: 0x7010))
    }

    @Test func `AVQ-D-322: after an unmapping the very next access finds nothing`() throws {
        rig.managementMemory = try memory()
        let id = rig.create()
        rig.negotiate(id)
        rig.run(id)
        let context = try #require(rig.factory.echo(id)?.context)
        map(id, 0x7000, to: 0x2000, .read)
        let before = context.memory
        #expect(before === context.memory)
        #expect(WireFields(rig.succeed(.unmap(first: 0x7000, last: 0x7fff), for: id))[0] == 0x1000)
        #expect(context.memory !== before)
        #expect(context.memory.read(0x7000, 1) == nil)
    }

    @Test func `AVQ-D-219, AVQ-D-323, HI-F69: a failed access stops this device and no other`()
        throws
    {
        rig.managementMemory = try memory()
        let (id, other) = (rig.create(), rig.create())
        for id in [id, other] {
            rig.negotiate(id)
            rig.succeed(.bindConfiguration(vector: 2), for: id)
            rig.run(id)
        }
        map(id, 0x1000, to: 0, .read)
        let context = try #require(rig.factory.echo(id)?.context)
        let before = rig.events.count
        context.fail(DeviceFault("ring/unmapped", queue: 1, address: 0x1008, access: .write))
        context.fail(DeviceFault("ring/unmapped", queue: 0, address: 0x9000, access: .read))
        #expect(rig.status(id).isSuperset(of: [.mmuFail, .needsReset]))
        #expect(rig.status(other).isDisjoint(with: [.mmuFail, .needsReset]))
        let fault = FaultRecord(WireFields(rig.succeed(.faultGet, for: id)))
        #expect(fault.reason == .permission)
        #expect(fault.flags == [.write, .addressValid])
        #expect(fault.address == 0x1008)
        #expect(fault.queue == 1)
        let sent = rig.events.dropFirst(before)
        #expect(sent.map(\.type) == [.configurationChange, .mmuFault])
        #expect(sent.last?.data == 0x1008)
        #expect(sent.last?.index == 1)
        // Cut off at once, whatever it still tries.
        #expect(context.memory.all.isEmpty)
        context.interruptConfiguration()
        #expect(rig.events.count == before + 2)
        let notified = rig.factory.echo(id)?.notified.count
        rig.succeed(.queueKick(queue: 1, notification: 0), for: id)
        #expect(rig.factory.echo(id)?.notified.count == notified)
        let information = DeviceInformation(WireFields(rig.succeed(.information, for: id)))
        #expect(information.flags.isSuperset(of: [.isStopped, .mmuFail, .driverOK]))
    }

    @Test func `AVQ-D-323: a reset forgets the fault and keeps the mappings`() throws {
        rig.managementMemory = try memory()
        let id = rig.create()
        rig.negotiate(id)
        map(id, 0x1000, to: 0, .read)
        rig.run(id)
        try #require(rig.factory.echo(id)?.context)
            .fail(DeviceFault("ring/unmapped", address: 0x9000, access: .read))
        rig.fail(.statusSet([.acknowledge, .driver, .featuresOK]), for: id, .badState)
        rig.succeed(.statusSet([]), for: id)
        #expect(FaultRecord(WireFields(rig.succeed(.faultGet, for: id))) == .none)
        let kept = MappingRecord(WireFields(rig.succeed(.mappingQuery(address: 0x1000), for: id)))
        #expect(kept.last == 0x1fff)
        rig.negotiate(id)
        rig.run(id)
        #expect(rig.factory.echo(id)?.context?.memory.read(0x1000, 1) == [0])
    }

    @Test func `AVQ-D-219: a fault without an address asks for a reset and blames no MMU`() throws {
        let id = rig.create()
        rig.negotiate(id)
        rig.run(id)
        let before = rig.events.count
        try #require(rig.factory.echo(id)?.context).fail(DeviceFault("ring/loop", queue: 0))
        #expect(rig.status(id).contains(.needsReset))
        #expect(!rig.status(id).contains(.mmuFail))
        #expect(rig.events.dropFirst(before).map(\.type) == [.needsReset])
        #expect(FaultRecord(WireFields(rig.succeed(.faultGet, for: id))).reason == .none)
    }

    @Test func `AVQ-D-323: queue areas that are not mapped are a fault of the MMU at DRIVER_OK`()
        throws
    {
        rig.managementMemory = try memory()
        let id = rig.create()
        rig.negotiate(id)
        rig.enable(0, of: id)
        rig.run(id)
        #expect(rig.status(id).isSuperset(of: [.mmuFail, .needsReset]))
        let fault = FaultRecord(WireFields(rig.succeed(.faultGet, for: id)))
        #expect(fault.address == 0x10_0000)
        #expect(fault.queue == 0)
    }

    @Test func `AVQ-D-321, HI-F69: refused mappings change nothing on the device`() {
        let id = rig.create()
        map(id, 0x1000, to: 0, .read)
        func request(_ first: UInt64, _ last: UInt64, _ flags: MMUFlags) -> VirtualDeviceCommand {
            .map(MappingRecord(first: first, last: last, target: 0, flags: flags))
        }
        rig.fail(request(0x2000, 0x1fff, .read), for: id, .badAddress)
        rig.fail(request(0x2001, 0x2fff, .read), for: id, .badAddress)
        rig.fail(request(0x1000, 0x1fff, .read), for: id, .rangeOverlap)
        rig.fail(request(0x2000, 0x2fff, []), for: id, .invalidField)
        for page in UInt64(2)...4 { map(id, page * 0x1000, to: 0, .read) }
        rig.fail(request(0x9000, 0x9fff, .read), for: id, .noResource)
        rig.fail(.unmap(first: 0x1000, last: 0x27ff), for: id, .rangeOverlap)
        rig.fail(.mappingQuery(address: 0x9000), for: id, .noMapping)
        #expect(WireFields(rig.succeed(.unmapAll, for: id))[0] == 0x4000)
    }
}
