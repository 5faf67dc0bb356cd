internal import CSystemShims

/// CPUs and NUMA nodes of this machine (libnuma).
public enum Topology {
    /// Number of configured CPUs.
    public static var cpuCount: Int { Int(shim_cpu_count()) }

    /// True when this process may run on `cpu`.
    public static func mayUse(cpu: Int) -> Bool {
        shim_cpu_allowed(Int32(clamping: cpu)) == 1
    }

    /// CPUs that this process may run on, ascending.
    public static var usableCPUs: [Int] {
        (0..<cpuCount).filter(mayUse(cpu:))
    }

    /// Node that owns `cpu`; 0 on a machine without NUMA.
    public static func node(ofCPU cpu: Int) throws(SystemError) -> Int {
        Int(
            try checked(
                shim_numa_node_of_cpu(Int32(clamping: cpu)),
                "find the NUMA node of CPU \(cpu)"
            )
        )
    }

    /// Node that holds the page at `address`, which is faulted in first.
    @unsafe
    public static func node(ofAddress address: UnsafeRawPointer) throws(SystemError) -> Int {
        Int(
            try checked(
                unsafe shim_numa_node_of_address(address),
                "find the NUMA node of a page"
            )
        )
    }

    /// Prefers `node` for pages of the mapping that do not exist yet.
    public static func prefer(node: Int, for mapping: Mapping) throws(SystemError) {
        try checked(
            unsafe shim_numa_prefer(mapping.address, mapping.length, Int32(clamping: node)),
            "prefer NUMA node \(node)"
        )
    }

    /// Binds the calling thread to one CPU.
    public static func pinThread(to cpu: Int) throws(SystemError) {
        try checked(shim_pin_thread(Int32(clamping: cpu)), "pin a thread to CPU \(cpu)")
    }
}
