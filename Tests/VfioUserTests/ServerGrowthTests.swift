import Glibc
import GuestMemory
import HostSystem
import Testing
import VfioUser

/// What a process holds.
private struct Holdings: Equatable {
    var descriptors = 0
    var mappings = 0

    init() {
        descriptors = Holdings.count("/proc/self/fd")
        mappings = Holdings.lines("/proc/self/maps")
    }

    private static func count(_ path: String) -> Int {
        guard let folder = unsafe opendir(path) else { return -1 }
        defer { unsafe closedir(folder) }
        var count = 0
        while unsafe readdir(folder) != nil { count += 1 }
        return count
    }

    private static func lines(_ path: String) -> Int {
        guard let file = unsafe fopen(path, "r") else { return -1 }
        defer { unsafe fclose(file) }
        var count = 0
        while case let byte = unsafe fgetc(file), byte != EOF {
            if byte == 10 { count += 1 }
        }
        return count
    }
}

/// One client from beginning to end: memory, interrupts, doorbells, and then gone in mid-message.
private func serveOne(_ rig: ServerRig, _ file: MemoryFile) throws {
    let caller = try rig.negotiated()
    for index in 0..<8 as Range<UInt64> {
        let map = DMAMap(
            flags: [.readable, .writable],
            offset: index << 12,
            address: index << 20,
            length: 4096
        )
        _ = try caller.ask(.dmaMap, map.encoded, [file.descriptor])
    }
    _ = rig.server.memory.write([1], at: 0)
    _ = try caller.ask(.dmaUnmap, DMAUnmap(address: 0, length: 1 << 21).encoded)
    let set = InterruptSet(flags: [.eventDescriptors, .trigger], index: .msix, count: 1)
    _ = try caller.ask(.deviceSetIRQs, set.encoded, [try EventFD().descriptor])
    let bells = RegionDescriptors(argumentSize: 4096, index: 0)
    _ = try caller.ask(.deviceGetRegionIOFDs, bells.encoded)
    try caller.say(Array(message(.dmaMap, id: 1).prefix(9)), [file.descriptor])
    try rig.turns()
}

@Suite struct ServerGrowthTests {
    @Test func `HI-E22, VFU-H-09: hundreds of clients leave nothing behind`() async {
        // In a process of its own: others open files too.
        await #expect(processExitsWith: .success) {
            let rig = try ServerRig()
            try rig.function.shareWindow([0..<0x4000])
            let file = try MemoryFile(name: "memory", size: 8 * 4096)
            for _ in 0..<100 { try serveOne(rig, file) }
            try rig.turns()
            let before = Holdings()
            for _ in 0..<400 { try serveOne(rig, file) }
            try rig.turns()
            let after = Holdings()
            precondition(after.descriptors == before.descriptors, "\(before) became \(after)")
            precondition(after.mappings <= before.mappings + 4, "\(before) became \(after)")
            precondition(rig.server.connectionCount == 500 && !rig.server.isConnected)
        }
    }
}
