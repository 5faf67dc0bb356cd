import HostSystem
import Testing
import VirtioSpec

@testable import VhostUser

@Suite struct SessionMemoryTests {
    /// Two regions in two files, as a machine with memory above 4 GiB has them.
    private func two() throws -> (MemoryTablePayload, [FileDescriptor]) {
        let low = try TestMemory()
        let high = try TestMemory(guestAddress: 0x1_0000_0000, userAddress: 0x7f10_0000_0000)
        return (
            MemoryTablePayload([high.region, low.region]),
            [high.file.descriptor, low.file.descriptor]
        )
    }

    @Test func `VU-B-08: several regions and files are taken and sorted`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let (table, files) = try two()
        #expect(rig.send(.setMemoryTable, table.encoded, files, needsReply: true).number == 0)
        let regions = rig.session.state.description.regions
        #expect(regions.map(\.guestAddress) == [0, 0x1_0000_0000])
        #expect(regions[0].identity != regions[1].identity)
        #expect(regions.allSatisfy { $0.isSealed && $0.pageSize == 4096 })
    }

    @Test func `several regions of one file are recognised`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let memory = try TestMemory()
        var low = memory.region
        low.length = 0x4000
        var high = memory.region
        high.guestAddress = 0x1_0000_0000
        high.userAddress += 0x100_0000
        high.fileOffset = 0x4000
        high.length = 0x4000
        let files = [memory.file.descriptor, try memory.file.descriptor.duplicate()]
        let table = MemoryTablePayload([low, high])
        #expect(rig.send(.setMemoryTable, table.encoded, files, needsReply: true).number == 0)
        let regions = rig.session.state.memory.regions
        #expect(Set(regions.map(\.identity)).count == 1)
        #expect(regions.map(\.fileOffset) == [0, 0x4000])
    }

    @Test func `VU-B-08, HI-D14: a table that fails leaves the old one in force`() throws {
        var (rig, memory) = try SessionRig.working()
        var bad = memory.table
        bad.padding = 1
        let step = rig.send(
            .setMemoryTable,
            bad.encoded,
            [memory.file.descriptor],
            needsReply: true
        )
        #expect(step.refused?.id == .memoryCount)
        #expect(step.number == 1)
        #expect(rig.session.state.memory.regions.count == 1)
        #expect(rig.quiesceCount == 0, "a bad table must not disturb traffic")
    }

    @Test func `HI-D3: a table whose size does not fit its count is refused`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let (table, files) = try two()
        var short = table
        short.regions.removeLast()
        let step = rig.send(.setMemoryTable, short.encoded, files, needsReply: true)
        #expect(step.refused?.id == .size)
        let odd = rig.send(.setMemoryTable, table.encoded + [0], files, needsReply: true)
        #expect(odd.refused?.id == .size)
        #expect(rig.session.state.memory.regions.isEmpty)
    }

    @Test func `HI-D15: a new table under traffic waits for the device, then rings go on`() throws {
        var (rig, memory) = try SessionRig.working()
        rig.positions = [0: 5, 1: 60_000]
        let moved = try TestMemory(guestAddress: 0x4000_0000)
        #expect(moved.region.userAddress == memory.region.userAddress)
        let step = rig.send(
            .setMemoryTable,
            moved.table.encoded,
            [moved.file.descriptor],
            needsReply: true
        )
        #expect(step.number == 0)
        #expect(rig.quiesceCount == 1)
        let snapshot = try #require(rig.session.publish().snapshot)
        #expect(snapshot.rings.map(\.descriptorArea) == [0x4000_0000, 0x4001_0000])
        #expect(snapshot.rings.map(\.nextAvailable) == [5, 60_000])
        #expect(snapshot.rings.allSatisfy { $0.isStarted && $0.isEnabled })
        #expect(snapshot.regions[0].file === moved.file.descriptor)
    }

    @Test func `HI-D15: nothing is in force while the device has not stopped`() throws {
        var (rig, _) = try SessionRig.working()
        let moved = try TestMemory(guestAddress: 0x4000_0000)
        let step = rig.session.accept(
            Message(
                .setMemoryTable,
                needsReply: true,
                payload: moved.table.encoded,
                descriptors: [moved.file.descriptor]
            )
        )
        #expect(step.needsQuiesce)
        #expect(step.reply == nil)
        #expect(rig.session.isWaiting)
        #expect(rig.session.publish().snapshot == nil)
        #expect(rig.session.state.memory.regions[0].guestAddress == 0)
        #expect(rig.session.resume { _ in nil }.number == 0)
        #expect(!rig.session.isWaiting)
        #expect(rig.session.publish().snapshot?.regions[0].guestAddress == 0x4000_0000)
    }

    @Test func `HI-D16: a table without a working ring's memory is refused`() throws {
        var (rig, _) = try SessionRig.working()
        let elsewhere = try TestMemory(userAddress: 0x1000_0000)
        let step = rig.send(
            .setMemoryTable,
            elsewhere.table.encoded,
            [elsewhere.file.descriptor],
            needsReply: true
        )
        #expect(step.refused?.id == .ringArea)
        #expect(step.number == 1)
        #expect(rig.quiesceCount == 0)
        #expect(rig.session.state.description.rings.count == 2)
    }

    @Test func `the same table may come while its rings are disabled, as DPDK does`() throws {
        var (rig, memory) = try SessionRig.working()
        rig.state(.setVringEnable, 0, 0)
        rig.state(.setVringEnable, 1, 0)
        #expect(rig.quiesceCount == 1, "the device was stopped once and told nothing since")
        let again = rig.send(
            .setMemoryTable,
            memory.table.encoded,
            [try memory.file.descriptor.duplicate()]
        )
        #expect(again.isGood)
        rig.state(.setVringEnable, 0, 1)
        rig.state(.setVringEnable, 1, 1)
        let snapshot = try #require(rig.session.publish().snapshot)
        #expect(snapshot.rings.allSatisfy { $0.isStarted && $0.isEnabled })
    }

    @Test func `VU-B-09, HI-D17: regions beyond the slots are refused`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let slots = try #require(rig.send(.getMemorySlots).number)
        #expect(slots == 32)
        let memory = try TestMemory(size: 4096)
        for index in 0...slots {
            var region = memory.region
            region.guestAddress = index << 20
            region.userAddress = index << 20
            let step = rig.send(
                .addRegion,
                SingleRegionPayload(region).encoded,
                [try memory.file.descriptor.duplicate()],
                needsReply: true
            )
            #expect(step.number == (index < slots ? 0 : 1))
            if index == slots { #expect(step.refused?.id == .memorySlots) }
        }
        #expect(rig.session.state.memory.regions.count == 32)
    }

    @Test func `VU-B-09: a region that overlaps is refused`() throws {
        var (rig, memory) = try SessionRig.working()
        let step = rig.send(
            .addRegion,
            SingleRegionPayload(memory.region).encoded,
            [memory.file.descriptor],
            needsReply: true
        )
        #expect(step.refused?.id == .memoryOverlap)
        #expect(rig.session.state.memory.regions.count == 1)
    }

    @Test func `a region can be added under traffic without stopping anybody`() throws {
        var (rig, _) = try SessionRig.working()
        let more = try TestMemory(guestAddress: 1 << 32, userAddress: 0x10_0000)
        let step = rig.send(
            .addRegion,
            SingleRegionPayload(more.region).encoded,
            [more.file.descriptor],
            needsReply: true
        )
        #expect(step.number == 0)
        #expect(rig.quiesceCount == 0)
        let snapshot = try #require(rig.session.publish().snapshot)
        #expect(snapshot.regions.count == 2)
    }

    @Test func `VU-B-10: a region is removed by guest address, user address and size`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let memory = try TestMemory()
        let wire = SingleRegionPayload(memory.region).encoded
        rig.send(.addRegion, wire, [memory.file.descriptor])
        var changed = [memory.region, memory.region, memory.region]
        changed[0].guestAddress += 4096
        changed[1].userAddress += 4096
        changed[2].length -= 4096
        for region in changed {
            let step = rig.send(
                .removeRegion,
                SingleRegionPayload(region).encoded,
                needsReply: true
            )
            #expect(step.refused?.id == .memoryUnknown)
        }
        #expect(rig.send(.removeRegion, wire, needsReply: true).number == 0)
        #expect(rig.session.state.memory.regions.isEmpty)
    }

    @Test func `VU-B-10, HI-D17: a descriptor with REM_MEM_REG is closed unused`() throws {
        var rig = SessionRig()
        rig.negotiate()
        let memory = try TestMemory()
        let wire = SingleRegionPayload(memory.region).encoded
        weak var stray: FileDescriptor?
        do {
            let descriptor = try memory.file.descriptor.duplicate()
            stray = descriptor
            let unknown = rig.send(.removeRegion, wire, [descriptor], needsReply: true)
            #expect(unknown.refused?.id == .memoryUnknown)
        }
        #expect(stray == nil)
        rig.send(.addRegion, wire, [memory.file.descriptor])
        do {
            let descriptor = try memory.file.descriptor.duplicate()
            stray = descriptor
            #expect(rig.send(.removeRegion, wire, [descriptor], needsReply: true).number == 0)
        }
        #expect(stray == nil)
        let two = [try memory.file.descriptor.duplicate(), try memory.file.descriptor.duplicate()]
        #expect(rig.send(.removeRegion, wire, two, needsReply: true).refused?.id == .descriptors)
    }

    @Test func `HI-D16: the region of a working ring cannot be removed`() throws {
        var (rig, memory) = try SessionRig.working()
        let wire = SingleRegionPayload(memory.region).encoded
        let step = rig.send(.removeRegion, wire, needsReply: true)
        #expect(step.refused?.id == .ringArea)
        #expect(rig.session.state.memory.regions.count == 1)
    }

    @Test func `a region that no ring needs is removed once the device has stopped`() throws {
        var (rig, _) = try SessionRig.working()
        let more = try TestMemory(guestAddress: 1 << 32, userAddress: 0x10_0000)
        let wire = SingleRegionPayload(more.region).encoded
        rig.send(.addRegion, wire, [more.file.descriptor])
        _ = rig.session.publish()
        #expect(rig.send(.removeRegion, wire, needsReply: true).number == 0)
        #expect(rig.quiesceCount == 1)
        #expect(rig.session.publish().snapshot?.regions.count == 1)
    }

    @Test func `HI-D41: files of a session are closed with it`() throws {
        weak var file: FileDescriptor?
        do {
            var rig = SessionRig()
            rig.negotiate()
            let memory = try TestMemory()
            let descriptor = try memory.file.descriptor.duplicate()
            file = descriptor
            rig.send(.setMemoryTable, memory.table.encoded, [descriptor])
            #expect(rig.session.state.memory.regions.count == 1)
        }
        #expect(file == nil)
    }
}
