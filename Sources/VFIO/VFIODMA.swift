internal import GuestMemory
internal import HostSystem
internal import PCI

/// The arenas that one device can reach, and where.
struct VFIODMA {
    private struct Entry {
        let arena: DMAArena
        let ownsAddress: Bool
    }

    /// Arenas of at least this size are backed by huge pages where there are some.
    static let hugePage = 1 << 21

    private let space: any VFIOAddressSpace
    private let kernel: any VFIOKernel
    private let limits: VFIOMappingLimits
    private var addresses: DeviceAddressSpace
    private var entries: [Entry] = []

    init(_ space: any VFIOAddressSpace, kernel: any VFIOKernel) throws(PCIError) {
        self.space = space
        self.kernel = kernel
        limits = try space.limits
        addresses = DeviceAddressSpace(limits.ranges)
    }

    /// Makes an arena and maps it at an address of our choice.
    mutating func make(_ size: Int) throws(PCIError) -> DMAArena {
        let granule = limits.granule
        guard size > 0, let wanted = UInt64(exactly: size), wanted <= 1 << 46 else {
            throw .noRoom("an arena of \(size) bytes")
        }
        let isLarge = size >= Self.hugePage && granule <= UInt64(Self.hugePage)
        let unit = isLarge ? UInt64(Self.hugePage) : granule
        let length = (wanted + unit - 1) / unit * unit
        guard let address = addresses.take(length), address % granule == 0 else {
            throw .noRoom("an arena of \(size) bytes")
        }
        do throws(PCIError) {
            try check(length)
            let arena = try Self.allocate(Int(length), address, isLarge)
            try enter(arena, ownsAddress: true)
            return arena
        } catch {
            addresses.release(address)
            throw error
        }
    }

    /// Maps an arena at the address it names.
    mutating func map(_ arena: DMAArena) throws(PCIError) {
        let length = UInt64(arena.mapping.length)
        guard limits.hold(arena.deviceAddress, length),
            arena.deviceAddress % limits.granule == 0, length % limits.granule == 0
        else {
            throw .refused(
                HostRefusal(
                    "dma/range",
                    "the IOMMU cannot map \(length) bytes at"
                        + " 0x\(String(arena.deviceAddress, radix: 16))",
                    remedy: "let the function choose the address"
                )
            )
        }
        try check(length)
        try enter(arena, ownsAddress: false)
    }

    /// Takes an arena away.
    mutating func unmap(_ arena: DMAArena) throws(PCIError) {
        guard let at = entries.firstIndex(where: { $0.arena === arena }) else { return }
        let length = UInt64(arena.mapping.length)
        let space = space
        let taken = try presenting { () throws(SystemError) in
            try space.unmap(arena.deviceAddress, size: length)
        }
        guard taken >= length else {
            throw VFIOCapabilityChain.refusal("\(taken) of \(length) bytes were unmapped")
        }
        let entry = entries.remove(at: at)
        if entry.ownsAddress { addresses.release(arena.deviceAddress) }
    }

    /// Takes all of them away; what fails falls with the address space itself.
    mutating func clear() {
        for entry in entries {
            _ = try? space.unmap(
                entry.arena.deviceAddress,
                size: UInt64(entry.arena.mapping.length)
            )
        }
        entries = []
    }

    private mutating func enter(_ arena: DMAArena, ownsAddress: Bool) throws(PCIError) {
        do throws(SystemError) {
            try space.map(arena.mapping, at: arena.deviceAddress)
        } catch {
            throw refusal(error, UInt64(arena.mapping.length))
        }
        entries.append(Entry(arena: arena, ownsAddress: ownsAddress))
    }

    // Told before the kernel is asked, which says no more than "no memory" (HI-J15, HI-J16).
    private func check(_ length: UInt64) throws(PCIError) {
        let memory = kernel.lockedMemory()
        // What other processes of the user have locked is told nowhere: it shows when we map.
        let used = space.isLimitShared ? 0 : memory.used
        let (need, wraps) = used.addingReportingOverflow(length)
        if !memory.isExempt, wraps || need > memory.limit {
            throw .refused(memlock(have: memory.limit, need: need))
        }
        if let left = try space.limits.mappingsLeft, left == 0 {
            throw .refused(Self.mappings)
        }
    }

    private func refusal(_ error: SystemError, _ length: UInt64) -> PCIError {
        switch error.errno {
        case .noMemory:
            let memory = kernel.lockedMemory()
            let used = space.isLimitShared ? 0 : memory.used
            let (need, wraps) = used.addingReportingOverflow(length)
            guard !memory.isExempt else { return .noRoom("\(length) pinned bytes") }
            return .refused(memlock(have: memory.limit, need: wraps ? .max : need))
        case .noSpace:
            return .refused(Self.mappings)
        case .badAddress:
            return .refused(
                HostRefusal(
                    "dma/peer-to-peer",
                    "the \(length) bytes are no ordinary memory: one device's registers cannot be"
                        + " mapped for another through this IOMMU interface",
                    remedy: "copy through memory instead"
                )
            )
        default:
            return .system(error)
        }
    }

    private static func allocate(
        _ length: Int,
        _ address: UInt64,
        _ isLarge: Bool
    ) throws(PCIError) -> DMAArena {
        if isLarge,
            let arena = try? DMAArena(size: length, deviceAddress: address, hugePageShift: 21)
        {
            return arena
        }
        do throws(SystemError) {
            return try DMAArena(size: length, deviceAddress: address)
        } catch {
            throw .system(error)
        }
    }

    private func memlock(have: UInt64, need: UInt64) -> HostRefusal {
        HostRefusal(
            "limit/memlock",
            space.isLimitShared
                ? "all processes of this user together may lock \(have) bytes of memory, and this"
                    + " mapping needs \(need)"
                : "this process may lock \(have) bytes of memory and needs \(need)",
            remedy: "raise it: LimitMEMLOCK=infinity in the unit of systemd, or"
                + " '* - memlock unlimited' in /etc/security/limits.conf"
        )
    }

    private static var mappings: HostRefusal {
        HostRefusal(
            "limit/dma-entries",
            "the kernel allows no more mappings for this device",
            remedy: "raise it: modprobe vfio_iommu_type1 dma_entry_limit=N (65535 by default)"
        )
    }
}
