internal import GuestMemory
internal import HostSystem
internal import PCI

/// The arenas that a server can reach, and where.
///
/// They are handed over as files. The server may also ask for their bytes by messages, and has to when
/// it takes no descriptors (VFU-C-05).
struct ClientMemory {
    private struct Entry {
        let arena: DMAArena
        let ownsAddress: Bool
    }

    private let handsFilesOver: Bool
    private var entries: [Entry] = []
    private var addresses = DeviceAddressSpace()

    init(_ limits: ClientLimits) { handsFilesOver = limits.sharesMemory }

    /// Makes an arena at a free address and hands it over.
    mutating func make(_ size: Int, _ channel: ClientChannel) throws(PCIError) -> DMAArena {
        let page = channel.server.page
        guard size > 0, let wanted = UInt64(exactly: size), wanted <= 1 << 46 else {
            throw .noRoom("an arena of \(size) bytes")
        }
        let length = (wanted + page - 1) / page * page
        guard let address = addresses.take(length), address % page == 0 else {
            throw .noRoom("an arena of \(size) bytes")
        }
        do throws(PCIError) {
            let arena = try presenting { () throws(SystemError) in
                try DMAArena(size: Int(length), deviceAddress: address)
            }
            try enter(arena, ownsAddress: true, channel)
            return arena
        } catch {
            addresses.release(address)
            throw error
        }
    }

    /// Hands over an arena at the address it names.
    mutating func map(_ arena: DMAArena, _ channel: ClientChannel) throws(PCIError) {
        try enter(arena, ownsAddress: false, channel)
    }

    /// Takes an arena back, and its address.
    mutating func release(_ arena: DMAArena, _ channel: ClientChannel) throws(PCIError) {
        let ownsAddress = entries.first { $0.arena === arena }?.ownsAddress ?? false
        try unmap(arena, channel)
        if ownsAddress { addresses.release(arena.deviceAddress) }
    }

    /// Takes an arena back; nothing when it was not handed over.
    mutating func unmap(_ arena: DMAArena, _ channel: ClientChannel) throws(PCIError) {
        guard let at = entries.firstIndex(where: { $0.arena === arena }) else { return }
        let request = DMAUnmap(
            address: arena.deviceAddress,
            length: UInt64(arena.mapping.length)
        )
        // While the command is under way the server may still ask for bytes.
        defer {
            entries.remove(at: at)
            if let table = try? Self.table(of: entries) { channel.setMemory(table) }
        }
        let frame = try channel.exchange(
            ClientRequest(
                command: .dmaUnmap,
                fixed: request.encoded,
                reply: DMAUnmap.size...DMAUnmap.size
            ),
            "taking back \(request.length) bytes of memory"
        )
        guard let answer = DMAUnmap(frame.payload), answer.address == request.address,
            answer.length == request.length
        else { throw channel.fail("vfu/reply", "other memory than asked for was given back") }
    }

    private mutating func enter(
        _ arena: DMAArena,
        ownsAddress: Bool,
        _ channel: ClientChannel
    ) throws(PCIError) {
        guard entries.count < channel.server.memoryRanges else {
            throw .noRoom("more than \(entries.count) arenas: the server takes no more")
        }
        let before = entries
        entries.append(Entry(arena: arena, ownsAddress: ownsAddress))
        do throws(PCIError) {
            // The server may ask for bytes before its reply is here.
            channel.setMemory(try Self.table(of: entries))
            try tell(arena, channel)
        } catch {
            entries = before
            if let table = try? Self.table(of: entries) { channel.setMemory(table) }
            throw error
        }
    }

    private func tell(_ arena: DMAArena, _ channel: ClientChannel) throws(PCIError) {
        let isFile = handsFilesOver && channel.server.messageDescriptors > 0
        let request = DMAMap(
            flags: [.readable, .writable],
            address: arena.deviceAddress,
            length: UInt64(arena.mapping.length)
        )
        _ = try channel.exchange(
            ClientRequest(
                command: .dmaMap,
                fixed: request.encoded,
                descriptors: isFile ? [arena.file.descriptor] : []
            ),
            "handing over \(request.length) bytes of memory"
        )
    }

    private static func table(of entries: [Entry]) throws(PCIError) -> MemoryTable {
        var regions: [MemoryRegion] = []
        for entry in entries {
            let region = unsafe MemoryRegion(
                start: entry.arena.deviceAddress,
                size: UInt64(entry.arena.mapping.length),
                host: entry.arena.mapping.address
            )
            if let region { regions.append(region) }
        }
        do throws(MemoryTable.Problem) {
            return try MemoryTable(regions, owners: entries.map(\.arena.mapping))
        } catch {
            throw .system(SystemError("hand over an arena over another", .exists))
        }
    }
}
