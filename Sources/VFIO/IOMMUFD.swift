internal import HostSystem
internal import PCI

/// An address space of iommufd, with the device that was opened by its own character device.
final class IOMMUFD: VFIOAddressSpace {
    /// IOMMU_OPTION_RLIMIT_MODE is 0 unless somebody with CAP_SYS_RESOURCE changed it.
    let isLimitShared = true
    /// The opened and attached device.
    let device: FileDescriptor
    private let file: FileDescriptor
    private let identifier: UInt32
    private let kernel: any VFIOKernel

    init(
        _ node: String,
        host: VFIOHost,
        kernel: any VFIOKernel,
        token: String?
    ) throws(PCIError) {
        guard token == nil else {
            throw .notSupported("a token for a device behind iommufd")
        }
        self.kernel = kernel
        do throws(SystemError) {
            file = try kernel.open(host.tree.place(of: VFIOHost.iommufd))
        } catch {
            throw host.openFailure(VFIOHost.iommufd, error)
        }
        do throws(SystemError) {
            device = try kernel.open(host.tree.place(of: node))
        } catch {
            throw host.openFailure(node, error)
        }
        do throws(SystemError) {
            _ = try kernel.bind(device, to: file)
        } catch {
            // Members of the group that another driver or another iommufd owns show here only.
            if error.errno == .busy, let link = host.tree.linkName("\(host.folder)/iommu_group"),
                let group = Int(link)
            {
                throw host.groupRefusal(group)
            }
            throw VFIOHost.tooOld(error, "devices bound to iommufd", since: "6.6")
                ?? host.deviceFailure(error, hasToken: false)
        }
        do throws(SystemError) {
            identifier = try kernel.allocateAddressSpace(file)
        } catch {
            throw .system(error)
        }
        do throws(SystemError) {
            try kernel.attach(device, to: identifier)
        } catch {
            try? kernel.destroy(file, identifier)
            throw .system(error)
        }
    }

    var limits: VFIOMappingLimits {
        get throws(PCIError) {
            try VFIOMappingLimits(
                try presenting { () throws(SystemError) in
                    try kernel.addressRanges(file, identifier)
                }
            )
        }
    }

    func map(_ memory: Mapping, at iova: UInt64) throws(SystemError) {
        try kernel.map(file, identifier, memory, at: iova)
    }

    func unmap(_ iova: UInt64, size: UInt64) throws(SystemError) -> UInt64 {
        try kernel.unmap(file, identifier, at: iova, size: size)
    }
}
