internal import HostSystem
internal import PCI

/// An IOMMU group that this process has open. The kernel lets one process at a time have it.
final class VFIOGroup {
    let number: Int
    let file: FileDescriptor
    private let kernel: any VFIOKernel

    /// Opens the group and makes sure that the kernel would give all of it away: `vfio/group`
    /// otherwise.
    init(_ number: Int, host: VFIOHost, kernel: any VFIOKernel) throws(PCIError) {
        self.number = number
        self.kernel = kernel
        let node = "/dev/vfio/\(number)"
        do throws(SystemError) {
            file = try kernel.open(host.tree.place(of: node))
        } catch {
            throw host.openFailure(node, error)
        }
        let file = file
        let flags = try presenting { () throws(SystemError) in try kernel.groupStatus(file) }
        guard flags & VFIOLayout.groupIsViable != 0 else { throw host.groupRefusal(number) }
    }

    /// Takes a device out.
    func device(
        _ host: VFIOHost,
        token: String?
    ) throws(PCIError) -> FileDescriptor {
        let name = token.map { "\(host.address) vf_token=\($0)" } ?? "\(host.address)"
        do throws(SystemError) {
            return try kernel.device(file, name)
        } catch {
            throw host.deviceFailure(error, hasToken: token != nil)
        }
    }
}

/// A container: the memory that the devices of its group can reach, by a type 1 IOMMU (version 2:
/// a mapping is taken away as it was made).
final class VFIOContainer: VFIOAddressSpace {
    let isLimitShared = false
    private let file: FileDescriptor
    private let group: VFIOGroup
    private let kernel: any VFIOKernel
    private var holdsGroup = false

    init(_ group: VFIOGroup, host: VFIOHost, kernel: any VFIOKernel) throws(PCIError) {
        self.group = group
        self.kernel = kernel
        do throws(SystemError) {
            file = try kernel.open(host.tree.place(of: VFIOHost.container))
        } catch {
            throw host.openFailure(VFIOHost.container, error)
        }
        let file = file
        let version = try presenting { () throws(SystemError) in try kernel.apiVersion(file) }
        guard version == VFIOLayout.apiVersion else {
            throw .notSupported("version \(version) of VFIO")
        }
        let hasType1 = try presenting { () throws(SystemError) in
            try kernel.checkExtension(file, VFIOLayout.type1v2)
        }
        guard hasType1 > 0 else {
            throw .refused(
                HostRefusal(
                    "vfio/module",
                    "VFIO has no driver for an IOMMU of type 1",
                    remedy: "load it: modprobe vfio_iommu_type1"
                )
            )
        }
        do throws(SystemError) {
            try kernel.setContainer(group.file, file)
        } catch {
            // Another driver took a member between the group's status and now.
            if error.errno == .busy || error.errno == .notPermitted {
                throw host.groupRefusal(group.number)
            }
            throw .system(error)
        }
        holdsGroup = true
        do throws(SystemError) {
            try kernel.setIOMMU(file, VFIOLayout.type1v2)
        } catch {
            throw Self.iommuFailure(error)
        }
    }

    deinit {
        guard holdsGroup else { return }
        // Fails while a window keeps the device open; the kernel does it then with the last of them.
        try? kernel.unsetContainer(group.file)
    }

    var limits: VFIOMappingLimits {
        get throws(PCIError) {
            let bytes = try presenting { () throws(SystemError) in
                try kernel.iommuAnswer(file, capacity: 1 << 14)
            }
            return try VFIOMappingLimits(AnswerBytes(bytes: bytes))
        }
    }

    func map(_ memory: Mapping, at iova: UInt64) throws(SystemError) {
        try kernel.mapDMA(file, memory, at: iova)
    }

    func unmap(_ iova: UInt64, size: UInt64) throws(SystemError) -> UInt64 {
        try kernel.unmapDMA(file, at: iova, size: size)
    }

    // type 1 refuses an IOMMU without interrupt remapping with EPERM.
    private static func iommuFailure(_ error: SystemError) -> PCIError {
        guard error.errno == .notPermitted else { return .system(error) }
        return .refused(
            HostRefusal(
                "iommu/interrupts",
                "the IOMMU does not remap interrupts, so that a device could forge them",
                remedy: "switch interrupt remapping on (QEMU: intel-iommu,intremap=on)"
            )
        )
    }
}
